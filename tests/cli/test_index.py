"""``simcse index``: from a text file to hits, and what a slip costs."""

import json
import shutil

import pytest

pytest.importorskip("faiss")
LINES = ["A man plays the guitar.", "", "The dog runs.", "the woman is eating", "The dog runs."]


@pytest.fixture
def built(simcse, tiny_model_folder, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LINES) + "\n")
    folder = tmp_path / "index"
    model = ("--model", tiny_model_folder, "--precision", "fp32")  # alone as in a batch
    outcome = simcse("index", "build", folder, tmp_path / "a.txt", *model)
    assert outcome.code == 0, outcome.err
    assert "4 rows, 1 blank" in outcome.err
    assert "3 rows" in outcome.err  # the same text is one row
    return folder


def search(simcse, folder, *arguments):
    options = ("--precision", "fp32", "--format", "json")
    outcome = simcse("index", "search", folder, *arguments, *options)
    assert outcome.code == 0, outcome.err
    return [found["hits"] for found in json.loads(outcome.out)]


def test_a_text_file_is_searched(simcse, built, tmp_path):
    (hits,) = search(simcse, built, "the dog runs.")
    assert len(hits) == 3
    assert hits[0]["text"] == "The dog runs."
    assert hits[0]["score"] == pytest.approx(1.0)
    (tmp_path / "queries.txt").write_text("the dog\na guitar\n")
    assert len(search(simcse, built, "--queries", tmp_path / "queries.txt", "-k", 1)) == 2
    table = simcse("index", "search", built, "the dog runs.", "-k", 1).out
    assert "1.0000" in table
    assert "The dog runs." in table


def test_rows_with_metadata_are_added_filtered_replaced_and_removed(simcse, built, tmp_path):
    rows = [{"id": 1, "text": "a cat eats", "lang": "en"}, {"id": 2, "text": "x", "lang": "de"}]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for verb in ("2 added", "2 replaced"):
        assert verb in simcse("index", "add", built, tmp_path / "b.jsonl").err
    (hits,) = search(simcse, built, "a cat", "--where", "lang=de")
    assert [hit["id"] for hit in hits] == ["2"]
    outcome = simcse("index", "search", built, "a cat", "--where", "lnag=de")
    assert (outcome.code, "did you mean 'lang'" in outcome.err) == (2, True)
    assert simcse("index", "remove", built, "2", "77").out == "1\n"
    (tmp_path / "ids.txt").write_text("1\n")
    assert simcse("index", "remove", built, "--ids", tmp_path / "ids.txt").out == "1\n"
    assert len(search(simcse, built, "a cat")[0]) == 3


def test_upkeep(simcse, built, tmp_path):
    assert simcse("index", "verify", built).code == 0
    assert simcse("index", "backup", built, tmp_path / "backup").code == 0
    assert "recall@10 1.000" in simcse("index", "rebuild", built, "--type", "int8").err
    assert simcse("index", "compact", built).code == 0
    facts = json.loads(simcse("index", "info", built, "--json").out)
    assert (facts["rows"], facts["index_type"], facts["unfinished"]) == (3, "int8", False)
    assert "exact" in simcse("index", "restore", built, tmp_path / "backup").err
    assert "fingerprint" in simcse("index", "info", built).out
    path = next(built.glob("vectors-*.npy"))
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    for command in ("verify", "compact", "rebuild"):  # a plain opening compares only sizes
        outcome = simcse("index", command, built)
        assert outcome.code == 4, command
        assert f"{path.name} is damaged" in outcome.err
    path.write_bytes(damaged[:-3])
    for command in ("verify", "compact", "info", "search"):
        outcome = simcse("index", command, built, *(["a"] if command == "search" else []))
        assert outcome.code == 4, command
        assert f"{path.name} is damaged" in outcome.err
    assert simcse("index", "rebuild", tmp_path / "backup", "--type", "int8").code == 0
    next((tmp_path / "backup").glob("*.faiss")).write_bytes(b"x")
    assert "it is made again" in simcse("index", "search", tmp_path / "backup", "a").err


def test_the_same_commands_on_postgresql(simcse, postgres, tiny_model_folder, tmp_path):
    rows = [{"id": at, "text": f"a cat eats {at}", "n": at} for at in range(5)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    place, model = postgres.new_index(), ("--model", tiny_model_folder)
    outcome = simcse("index", "build", place, tmp_path / "a.jsonl", *model, "--type", "hnsw")
    assert outcome.code == 0, outcome.err
    assert "5 added" in outcome.err
    assert "hnsw, recall@10 1.000" in outcome.err
    assert (simcse("index", "build", place, tmp_path / "a.jsonl", *model).code) == 2
    assert "5 replaced" in simcse("index", "add", place, tmp_path / "a.jsonl").err
    (hits,) = search(simcse, place, "a cat eats 3", "--where", "n>=2")
    assert [hit["id"] for hit in hits][0] == "3"
    assert len(hits) == 3
    assert simcse("index", "remove", place, "4", "77").out == "1\n"
    assert "% of random pairs" in simcse("calibrate", place).out
    for command in ("verify", "compact", "rebuild", "info"):
        assert simcse("index", command, place).code == 0, command
    facts = json.loads(simcse("index", "info", place, "--json").out)
    assert (facts["rows"], facts["index_type"], facts["unfinished"]) == (4, "hnsw", False)
    outcome = simcse("index", "search", place, "a", "--max-length", "16")
    assert (outcome.code, "max_length 32 there, 16 here" in outcome.err) == (4, True)
    outcome = simcse("index", "backup", place, tmp_path / "backup")
    assert (outcome.code, "pg_dump" in outcome.err) == (2, True)
    outcome = simcse("index", "search", postgres.new_index(), "a")
    assert (outcome.code, "no index at" in outcome.err) == (4, True)


def test_x6_another_model_is_refused(simcse, built, tiny_model_folder):
    outcome = simcse("index", "search", built, "a", "--max-length", "16")
    assert outcome.code == 4
    assert "max_length 32 there, 16 here" in outcome.err
    outcome = simcse("index", "search", built, "a", "--model", "mini")
    assert outcome.code == 4
    assert "was made by the model" in outcome.err


def test_the_model_may_move(simcse, built, tiny_model_folder, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "moved")
    assert (
        search(simcse, built, "the dog runs.", "--model", tmp_path / "moved")[0][0]["score"] > 0.99
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "INDEX", "missing.txt"], 3, "cannot read missing.txt"),
        (["build", "BUILT", "SOURCE"], 2, "is built already"),
        (["search", "missing", "a"], 4, "simcse index build missing FILE"),
        (["search", "BUILT", " "], 2, "not blank"),
        (["search", "BUILT"], 2, "at least one query"),
        (["search", "BUILT", "a", "-k", "0"], 2, "-k"),
        (["search", "BUILT", "a", "--threshold", "60"], 2, "threshold must be a cosine"),
        (["search", "BUILT", "a", "--where", "lang"], 2, "expected a filter such as"),
        (["remove", "BUILT"], 2, "name the ids"),
        (["restore", "BUILT", "missing"], 4, "no index at missing"),
    ],
)
def test_a_slip_has_its_exit_code(
    simcse, built, tmp_path, tiny_model_folder, arguments, code, message
):
    places = {"BUILT": built, "INDEX": tmp_path / "new", "SOURCE": tmp_path / "a.txt"}
    options = ["--model", tiny_model_folder] if arguments[0] == "build" else []
    outcome = simcse("index", *[places.get(word, word) for word in arguments], *options)
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "new").exists()


def test_an_interrupted_build_goes_on(simcse, tiny_model_folder, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("".join(f"sentence {at}\n" for at in range(10)))
    monkeypatch.setattr("simcse.index.ingest.ENCODE_ROWS", 2)
    monkeypatch.setattr("simcse.index.ingest.CHUNK_ROWS", 4)
    command = ("index", "build", tmp_path / "i", tmp_path / "a.txt", "--model", tiny_model_folder)
    with monkeypatch.context() as patched:
        calls = iter(range(3))

        def interrupted(self, texts, **_):
            if next(calls) == 2:
                raise KeyboardInterrupt
            return self.encode_stream(texts).__next__()

        patched.setattr("simcse.model.encoder.SentenceEncoder.encode", interrupted)
        outcome = simcse(*command)
    assert outcome.code == 130
    assert "4 rows are stored. Run the same command again to resume." in outcome.err
    assert json.loads(simcse("index", "info", tmp_path / "i", "--json").out)["unfinished"]
    outcome = simcse(*command)
    assert outcome.code == 0, outcome.err
    assert "4 rows are stored" in outcome.err
    assert "6 added" in outcome.err
    facts = json.loads(simcse("index", "info", tmp_path / "i", "--json").out)
    assert (facts["rows"], facts["unfinished"]) == (10, False)

"""``simcse evaluate transfer|geometry|retrieval|all``, ``compare``, ``postprocess``."""

import json
import re

import pytest

from simcse.evaluate import reference_scores as known
from simcse.model.encoder import SentenceEncoder

TEXTS = ["the dog runs", "a cat", "the man plays", "two women eat", "guitar", "a", "run", "eat it"]


def rows(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_transfer_has_accuracy_spread_and_says_its_protocol(simcse, tiny_model_folder, small_data):
    common = ("evaluate", "transfer", tiny_model_folder, "--data", small_data, "--fast")
    (row,) = rows(simcse(*common, "--format", "json"))
    assert set(row["MR"]) == {"mean", "deviation"}
    assert 0 <= row["MRPC F1"] <= 100
    assert row["TREC"] > 33  # letters tell the classes apart
    shown = simcse(*common, "--tasks", "cr,trec", "--solver", "lbfgs")
    assert "not SentEval's classifier" in shown.out
    wrong = simcse("evaluate", "transfer", "--tasks", "sst")
    assert (wrong.code, "unknown task 'sst'" in wrong.err) == (2, True)


def test_truncated_data_is_refused_before_a_model_is_loaded(simcse, small_data):
    path = small_data / "transfer_senteval" / "mr.tsv"
    path.write_text(path.read_text()[:40])
    outcome = simcse("evaluate", "all", "no-such-model", "--data", small_data)
    assert outcome.code == 3
    assert "mr.tsv" in outcome.err


def test_what_would_fail_at_the_end_fails_at_the_start(simcse, tmp_path, small_data):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        outcome = simcse("evaluate", "all", "no-such-model", "--output", output)
        assert (outcome.code, "file is a file" in outcome.err) == (2, True)
    for name, problem in (("math:pi", "not a function"), ("math:no", "cannot import")):
        outcome = simcse("evaluate", "sts", "--encoder", name, "--data", small_data)
        assert (outcome.code, problem in outcome.err) == (2, True)


def test_a_second_evaluation_encodes_nothing(simcse, tiny_model_folder, small_data, monkeypatch):
    common = ("evaluate", "sts", tiny_model_folder, "--data", small_data, "--format", "json")
    first = rows(simcse(*common))

    def refuse(*_arguments, **_options):
        raise AssertionError("encoded again")

    monkeypatch.setattr(SentenceEncoder, "encode", refuse)
    assert rows(simcse(*common)) == first
    with pytest.raises(AssertionError, match="encoded again"):
        simcse(*common, "--no-cache")


def test_geometry_of_the_users_pairs_and_the_path_of_a_run(simcse, tiny_model_folder, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{a}\t{b}\n" for a, b in zip(TEXTS, TEXTS[1:], strict=False)))
    run = tmp_path / "run"
    run.mkdir()
    events = [
        {"event": "eval", "step": step, "best": False, "alignment": 0.1 * step, "uniformity": -step}
        for step in (1, 2)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    output = tmp_path / "out"
    outcome = simcse(
        *("evaluate", "geometry", tiny_model_folder, "--pairs", pairs, "--run", run),
        *("--output", output, "--format", "json"),
    )
    tables = rows(outcome)
    assert len(tables) == 2
    assert {"Effective rank", "Hubness"} <= tables[list(tables)[1]][0].keys()
    assert (output / "report.html").read_text().count("<img ") == 2
    pairs.write_text("one\ntwo\n")
    assert simcse("evaluate", "geometry", tiny_model_folder, "--pairs", pairs).code == 3


def test_truncated_sentences_are_reported_once(simcse, tiny_model_folder, tmp_path):
    (tmp_path / "pairs.tsv").write_text(f"{'a ' * 40}\tguitar\nrun\tthe dog runs\n")
    outcome = simcse("evaluate", "geometry", tiny_model_folder, "--pairs", tmp_path / "pairs.tsv")
    assert outcome.code == 0, outcome.err
    assert outcome.err.strip().endswith("1 sentences truncated to 32 tokens")


def test_retrieval_of_pairs_and_groups(simcse, tiny_model_folder, tmp_path):
    pairs = tmp_path / "faq.tsv"
    pairs.write_text("".join(f"{text}?\t{text}\n" for text in TEXTS))
    (row,) = rows(
        simcse("evaluate", "retrieval", tiny_model_folder, "--pairs", pairs, "--format", "json")
    )
    assert row["Queries"] == row["Documents"] == len(TEXTS)
    assert 0 < row["MRR"]["mean"] <= 100
    groups = simcse(
        *("evaluate", "retrieval", tiny_model_folder, "--groups", pairs, "--at", "3"),
        *("--format", "markdown"),
    )
    assert "Recall@3" in groups.out
    assert simcse("evaluate", "retrieval", tiny_model_folder).code == 2


@pytest.fixture
def whitened(simcse, tiny_model_folder, tmp_path):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(f"{text} {number}" for text in TEXTS for number in range(9)))
    folder = tmp_path / "whitened"
    outcome = simcse(
        *("postprocess", tiny_model_folder, "--fit", corpus, "--type", "whitening"),
        *("--dimensions", "4", "--output", folder),
    )
    assert outcome.code == 0, outcome.err
    return folder


def test_everything_before_and_after_whitening(
    simcse, tiny_model_folder, whitened, small_data, tmp_path
):
    output = tmp_path / "out"
    outcome = simcse(
        *("evaluate", "all", tiny_model_folder, whitened, "--data", small_data, "--fast"),
        *("--output", output),
    )
    assert outcome.code == 0, outcome.err
    assert {path.name for path in output.iterdir()} == {
        *("report.html", "results.json", "results.md", "results.tex"),
    }
    results = json.loads((output / "results.json").read_text())
    bare, white = results["models"]
    assert bare["base"] == white["base"]
    assert white["settings"]["postprocess"] == "whitening"
    assert white["settings"]["pooling"] == "mean"  # what was not asked for is the model's own
    assert len(white["space"]["singular_values"]) == 4
    assert {"sts", "transfer"} <= white["seconds"].keys()
    assert "paired bootstrap" in outcome.out
    compared = simcse(
        *("compare", output / "results.json", output / "results.json"),
        *("--model-a", tiny_model_folder, "--model-b", whitened, "--format", "json"),
    )
    tasks = [row["Task"] for row in rows(compared)]
    assert {"STS12", "STS average", "MRPC", "Transfer average"} <= set(tasks)
    both = simcse("compare", output / "results.json", output / "results.json")
    assert (both.code, "Choose one by --model-a" in both.err) == (2, True)
    (tmp_path / "old.json").write_text("{}")
    assert simcse("compare", tmp_path / "old.json", tmp_path / "old.json").code == 4


def test_postprocessing_is_told_refused_twice_and_removed(simcse, whitened, tmp_path):
    facts = json.loads(simcse("info", whitened, "--json").out)
    assert facts["postprocess"] == "whitening"
    assert facts["provenance"]["postprocess"]["corpus"] == "corpus.txt"
    assert facts["dimensions"] == 4
    again = simcse(
        *("postprocess", whitened, "--fit", tmp_path / "corpus.txt", "--type", "flow"),
        *("--output", tmp_path / "twice"),
    )
    assert (again.code, "already" in again.err) == (2, True)
    trained = simcse(
        *("train", "--model", whitened, "--train", tmp_path / "corpus.txt"),
        *("--output", tmp_path / "run", "eval.dev=none"),
    )
    assert (trained.code, "--remove" in trained.err) == (2, True)
    removed = simcse("postprocess", whitened, "--remove", "--output", tmp_path / "bare")
    assert removed.code == 0, removed.err
    facts = json.loads(simcse("info", tmp_path / "bare", "--json").out)
    assert (facts["postprocess"], facts["dimensions"]) == ("none", 32)
    assert "postprocess" not in facts["provenance"]
    nothing = simcse("postprocess", tmp_path / "bare", "--remove", "--output", tmp_path / "x")
    assert nothing.code == 2


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--fit", "a.txt"),
        ("--remove", "--type", "flow"),
        ("--fit", "a.txt", "--type", "flow", "--dimensions", "3"),
        ("--fit", "a.txt", "--type", "whitening", "--directions", "3"),
    ],
)
def test_postprocess_options_that_do_not_go_together(simcse, options, tmp_path):
    assert simcse("postprocess", "mini", *options, "--output", tmp_path / "x").code == 2


def test_the_self_test_names_the_failed_tasks(simcse, tiny_model_folder, small_data, monkeypatch):
    from simcse.cli import evaluate_options as command

    monkeypatch.setattr(command, "_reference_model", lambda: str(tiny_model_folder))
    outcome = simcse("evaluate", "--self-test", "--data", small_data)
    assert outcome.code == 6
    assert "differ from the known ones by more than the tolerance: STS12" in outcome.err
    assert outcome.out.count("FAILED") == len(known.STS_REFERENCE) + len(known.TRANSFER_REFERENCE)
    found = re.search(r"STS12\s*│\s*72\.37", outcome.out)
    assert found, outcome.out
    assert simcse("evaluate", "--data", small_data).code == 2

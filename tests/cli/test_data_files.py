"""``simcse data lint``, the subsets that fix its findings, and ``simcse data augment``."""

import json

import pytest

from simcse.io.files import Source
from simcse.io.records import stream_examples
from wordnet import write_wordnet

LINES = [f"this is sentence {i} of the file with some {i * 7} words" for i in range(40)]


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "sts").mkdir(parents=True)
    (tmp_path / "data" / "sts" / "stsb-dev.tsv").write_text(f"x\t5\t{LINES[4]}\tother words\n")
    path = tmp_path / "text.txt"
    path.write_text("\n".join([*LINES, LINES[0], ""]))
    return path


def test_lint_names_lines_and_fixes(simcse, text):
    outcome = simcse("data", "lint", text)
    assert outcome.code == 0, outcome.err
    assert "41 usable rows" in outcome.out
    assert "duplicate rows: 1 (2.44%)\n  lines: 41\n  fix:   run simcse data dedupe" in outcome.out
    assert "rows with an evaluation sentence: 1 (2.44%)\n  lines: 5\n" in outcome.out
    assert "from  11        41 ####" in outcome.out
    as_json = json.loads(simcse("data", "lint", text, "--json").out)
    assert as_json["rows"] == 41
    assert {finding["name"] for finding in as_json["findings"]} >= {"duplicate rows"}


def test_the_fix_that_lint_proposes_works(simcse, text, tmp_path):
    clean = tmp_path / "clean.txt"
    done = simcse("data", "dedupe", text, "--near", "--leaks", "--output", clean)
    assert done.code == 0, done.err
    assert "1 evaluation sentences, 1 duplicates" in done.err
    findings = json.loads(simcse("data", "lint", clean, "--json").out)["findings"]
    assert [finding["name"] for finding in findings] == []


def test_split_and_sample_write_files_of_the_same_format(simcse, text, tmp_path):
    parts = tmp_path / "parts"
    assert simcse("data", "split", text, "--output", parts, "--dev", 0.2, "--test", 0).code == 0
    assert sorted(path.name for path in parts.iterdir()) == ["dev.txt", "train.txt"]
    read = [(parts / name).read_text().splitlines() for name in ("train.txt", "dev.txt")]
    assert sorted(read[0] + read[1]) == sorted([*LINES, LINES[0]])
    small = tmp_path / "small.txt.gz"
    assert simcse("data", "sample", text, "--rows", 5, "--output", small).code == 0
    assert "5 usable rows" in simcse("data", "lint", small).out


def test_augmented_sentences_are_pairs_to_train_on(simcse, text, tmp_path):
    pairs = tmp_path / "pairs.tsv.gz"
    how = ("--how", "crop", "--rate", "0.3", "--output", pairs)
    outcome = simcse("data", "augment", text, *how)
    assert outcome.code == 0
    assert outcome.err.endswith(f"{pairs}: 41 pairs\n")
    rows = list(stream_examples(Source(pairs), ()))
    assert [row.anchor for row in rows] == [*LINES, LINES[0]]
    assert all(row.positive in row.anchor and row.positive != row.anchor for row in rows)
    first = pairs.read_bytes()
    simcse("data", "augment", text, *how)
    assert pairs.read_bytes() == first
    simcse("data", "augment", text, *how, "--seed", 1)
    assert pairs.read_bytes() != first


def test_synonyms_come_from_the_named_wordnet(simcse, text, tmp_path):
    text.write_text("the dogs run\nnothing else here\n")
    pairs = tmp_path / "pairs.tsv"
    how = ("--how", "synonym", "--rate", "0.99", "--output", pairs)
    assert simcse("data", "augment", text, *how, "--wordnet", tmp_path / "none").code == 3
    done = simcse("data", "augment", text, *how, "--wordnet", write_wordnet(tmp_path / "words"))
    assert done.code == 0, done.err
    header, *rows = [line.split("\t") for line in pairs.read_text().splitlines()]
    assert header == ["anchor", "positive"]
    assert rows[1] == ["nothing else here"] * 2
    assert rows[0][1] in {f"the {noun} dash" for noun in ("dog", "hound dog", "rascal")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("lint", "nothing.txt"), 3, "cannot read nothing.txt"),
        (("lint", "-"), 3, "standard input"),
        (("sample", "TEXT", "--rows", "99", "--output", "o.txt"), 3, "at least 99 rows, found 41"),
        (("dedupe", "TEXT", "--output", "o.tsv"), 3, "of one format"),
        (("augment", "TEXT", "--how", "swap", "--output", "o.tsv"), 2, "crop, delete, delete-one"),
        (("augment", "TEXT", "--how", "crop", "--output", "o.tsv"), 2, "crop needs a rate"),
        (("augment", "TEXT", "--how", "delete-one", "--output", "o.txt"), 3, "written as .tsv"),
        (("augment", "TEXT", "--how", "mlm", "--rate", "0.1", "--output", "o.tsv"), 2, "--model"),
        (
            ("split", "TEXT", "--output", "o", "--dev", "0.6", "--test", "0.4"),
            2,
            "nothing to train",
        ),
    ],
)
def test_mistakes_have_exit_codes(simcse, text, arguments, code, message):
    outcome = simcse("data", *(text if word == "TEXT" else word for word in arguments))
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err

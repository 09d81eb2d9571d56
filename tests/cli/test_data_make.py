"""``simcse data pairs`` and ``simcse data nli``."""

import random

import pytest

from simcse.io.records import read_examples

NLI = "".join(
    f"{label}\tpremise {i}\t{label} {i}\n"
    for i in range(20)
    for label in ("entailment", "neutral", "contradiction")[: 1 + i % 3]
)


@pytest.fixture
def corpus(tmp_path):
    draw = random.Random(0)
    subjects = [[f"w{draw.randrange(900)}" for _ in range(4)] for _ in range(60)]
    lines = [
        " ".join([*subject, *(f"w{draw.randrange(900)}" for _ in range(4))])
        for subject in subjects
        for _ in range(5)
    ]
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(lines))
    return path


def test_neighbors_are_pairs_to_train_on(simcse, corpus, tmp_path):
    output = tmp_path / "pairs.tsv.gz"
    outcome = simcse(
        "data", "pairs", corpus, "--from", "neighbors", "--next", 3, "--output", output
    )
    assert outcome.code == 0, outcome.err
    assert "299 pairs; neighbors share " in outcome.err
    rows = read_examples(output)
    lines = corpus.read_text().splitlines()
    assert [row.anchor for row in rows] == lines[:-1]
    assert all(row.positive in lines[i + 1 : i + 4] for i, row in enumerate(rows))


def test_a_shuffled_corpus_leaves_no_file(simcse, corpus, tmp_path):
    lines = corpus.read_text().splitlines()
    random.Random(0).shuffle(lines)
    corpus.write_text("\n".join(lines))
    outcome = simcse(
        "data", "pairs", corpus, "--from", "neighbors", "--output", tmp_path / "pairs.tsv"
    )
    assert outcome.code == 3
    assert "not in document order" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


def test_nli_becomes_pairs_or_triplets(simcse, tmp_path):
    labeled, output = tmp_path / "nli.tsv", tmp_path / "out.tsv"
    labeled.write_text(NLI)
    outcome = simcse("data", "nli", labeled, "--positives", "neutral", "--output", output)
    assert outcome.code == 0, outcome.err
    assert "read: 6 contradiction, 20 entailment, 13 neutral; 20 premises" in outcome.err
    assert f"{output}: 13 pairs" in outcome.err
    assert [row.positive for row in read_examples(output)][:2] == ["neutral 1", "neutral 2"]
    hard = ("--positives", "entailment", "--hard-negatives", "contradiction,neutral")
    outcome = simcse("data", "nli", labeled, *hard, "--output", output)
    assert outcome.code == 0, outcome.err
    assert "left out: 14 premises without contradiction" in outcome.err
    assert f"{output}: 6 rows of 4 texts" in outcome.err
    assert read_examples(output)[0].negatives == ("contradiction 2", "neutral 2")
    outcome = simcse("data", "nli", labeled, *hard, "--every", "--output", output)
    assert outcome.code == 0, outcome.err
    assert "14 rows without contradiction" in outcome.err
    assert f"{output}: 20 rows of 2 or 3 or 4 texts" in outcome.err
    assert {len(row.negatives) for row in read_examples(output)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("pairs", "nothing.txt", "--from", "neighbors", "--output", "o.tsv"),
            3,
            "cannot read nothing.txt",
        ),
        (("pairs", "CORPUS", "--from", "neighbors", "--output", "o.txt"), 3, "written as .tsv"),
        (
            ("pairs", "CORPUS", "--from", "neighbors", "--next", "0", "--output", "o.tsv"),
            2,
            "--next",
        ),
        (("pairs", "CORPUS", "--output", "o.tsv"), 2, "--from"),
        (("nli", "CORPUS", "--positives", "all", "--output", "o.tsv"), 3, "found .txt"),
        (("nli", "CORPUS", "--positives", "no", "--output", "o.tsv"), 2, "found 'no'"),
        (("nli", "CORPUS", "--output", "o.tsv"), 2, "--positives"),
    ],
)
def test_mistakes_have_exit_codes(simcse, corpus, arguments, code, message):
    arguments = [corpus if word == "CORPUS" else word for word in arguments]
    outcome = simcse("data", *arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err

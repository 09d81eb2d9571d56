"""Labeled premises and hypotheses as pairs and triplets, against loops over all rows."""

import itertools

import pytest

from simcse.data.nli import LABELS, nli_rows
from simcse.errors import ConfigError, DataError
from simcse.io.files import ReadCounts, Source
from simcse.io.records import Example, stream_examples

ROWS = [
    Example(premise, hypothesis, label=label)
    for premise, label, hypothesis in [
        ("p", "entailment", "e1"),
        ("q", "neutral", "n1"),
        ("p", "contradiction", "c1"),
        ("p", "entailment", "e2"),
        ("p", "neutral", "n2"),
        ("r", "entailment", "e3"),
        ("r", "contradiction", "c2"),
        ("r", "contradiction", "c3"),
        ("r", "contradiction", "c3"),
        ("s", "-", "x"),
        ("t", "entailment", "both"),
        ("t", "contradiction", "both"),
        ("t", "contradiction", "c4"),
    ]
]


@pytest.mark.parametrize("positives", [*LABELS, "all"])
def test_without_hard_negatives_each_row_of_the_label_is_a_pair(positives):
    found = nli_rows(ROWS, positives=positives)
    wanted = LABELS if positives == "all" else [positives]
    assert list(found.rows) == [(r.anchor, r.positive) for r in ROWS if r.label in wanted]
    assert found.labels == {"entailment": 4, "neutral": 2, "contradiction": 6, "-": 1}
    assert found.premises == 5


@pytest.mark.parametrize("hard", [("contradiction",), ("contradiction", "neutral")])
def test_a_premise_with_all_that_is_asked_gives_one_row_drawn_from_its_own(hard):
    wanted = ("entailment", *hard)
    labels = {}
    for row in ROWS:
        labels.setdefault((row.anchor, row.positive), set()).add(row.label)
    allowed = {}
    for premise in dict.fromkeys(row.anchor for row in ROWS):
        choices = [
            [h for (p, h), given in labels.items() if p == premise and given == {label}]
            for label in wanted
        ]
        if rows := {(premise, *chosen) for chosen in itertools.product(*choices)}:
            allowed[premise] = rows
    drawn = set()
    for seed in range(40):
        found = nli_rows(ROWS, positives="entailment", hard_negatives=hard, seed=seed)
        assert found == nli_rows(ROWS, positives="entailment", hard_negatives=hard, seed=seed)
        assert [row[0] for row in found.rows] == list(allowed)
        drawn |= set(found.rows)
    assert drawn == set().union(*allowed.values())  # nothing else, and each at some time
    lacking = {"entailment": 3, "contradiction": 2, "neutral": 3}  # q, s, t; q, s; r, s, t
    assert found.lacking == {label: lacking[label] for label in wanted}


def test_every_positive_gives_a_row_with_the_hard_negatives_its_premise_has():
    hard = ("contradiction", "neutral")
    drawn = set()
    for seed in range(40):
        found = nli_rows(ROWS, positives="entailment", hard_negatives=hard, every=True, seed=seed)
        assert [row[:2] for row in found.rows] == [("p", "e1"), ("p", "e2"), ("r", "e3")]
        drawn |= set(found.rows)
    assert drawn == {
        ("p", "e1", "c1", "n2"),
        ("p", "e2", "c1", "n2"),
        ("r", "e3", "c2"),
        ("r", "e3", "c3"),
    }
    assert found.lacking == {"neutral": 1}  # r
    with pytest.raises(ConfigError, match="a row anyway"):
        nli_rows(ROWS, positives="entailment", every=True)


@pytest.mark.parametrize(
    ("positives", "hard", "message"),
    [
        ("maybe", (), "found 'maybe'"),
        ("entailment", ("entailment",), "asked for once"),
        ("all", ("neutral",), "asked for once"),
        ("entailment", ("neutral", "neutral"), "asked for once"),
        ("entailment", ("",), "found ''"),
    ],
)
def test_labels_that_do_not_go_together_are_refused(positives, hard, message):
    with pytest.raises(ConfigError, match=message):
        nli_rows(ROWS, positives=positives, hard_negatives=hard)


def test_another_label_is_refused_by_its_line_and_nothing_is_no_outcome():
    with pytest.raises(DataError, match=r"a.tsv:7: expected one of .*, found 'yes'"):
        nli_rows([Example("p", "h", label="yes", file="a.tsv", line=7)], positives="neutral")
    with pytest.raises(DataError, match=r"no premise has hypotheses of neutral, entailment"):
        nli_rows(ROWS[:1], positives="neutral", hard_negatives=["entailment"])
    with pytest.raises(DataError, match="no premise has"):
        nli_rows([], positives="neutral")


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("a.tsv", "neutral\tp q\th\n\nentailment\tr\ts\n", ()),
        ("a.csv", "premise,label,hypothesis\np q,neutral,h\nr,entailment,s\n",
         ("label", "premise", "hypothesis")),
        ("a.tsv", "p q\th\tneutral\nr\ts\tentailment\n", ("3", "1", "2")),
        ("a.jsonl", '{"label": "neutral", "premise": "p q", "hypothesis": "h"}\n'
         '{"label": "entailment", "premise": "r", "hypothesis": "s"}\n', ()),
        ("a.jsonl", '{"gold_label": "neutral", "sentence1": "p q", "sentence2": "h"}\n'
         '{"gold_label": "entailment", "sentence1": "r", "sentence2": "s"}\n', ()),
    ],
)  # fmt: skip
def test_labeled_rows_are_read_from_every_table(tmp_path, name, text, columns):
    (tmp_path / name).write_text(text)
    found = list(stream_examples(Source(tmp_path / name), columns, labeled=True))
    expected = [Example("p q", "h", label="neutral"), Example("r", "s", label="entailment")]
    assert found == expected
    assert found[0].line > 0
    assert found[0].file.endswith(name)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "neutral", "found .txt"),
        ("a.tsv", "neutral\tp\n", "expected the columns label, premise, hypothesis; found 2"),
        ("a.tsv", "neutral\tp\th\nneutral\tp\n", "a.tsv:2: the hypothesis is empty or missing"),
        ("a.tsv", "neutral\tp\th\nneutral\t\th\n", "a.tsv:2: the premise is empty or missing"),
        ("a.tsv", "neutral\tp\th\nneutral\tp\th\tx\n", "a.tsv:2: expected 3 columns"),
        ("a.jsonl", '{"label": 1, "premise": "p", "hypothesis": "h"}\n', "expected text"),
        (
            "a.jsonl",
            '{"text": "p"}\n',
            "expected the columns label, .* found 1: text",
        ),
    ],
)
def test_bad_labeled_rows_are_refused_by_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        list(stream_examples(Source(tmp_path / name), labeled=True))
    counts = ReadCounts()
    if ":2:" in message:
        rows = stream_examples(Source(tmp_path / name, "skip", counts), labeled=True)
        assert len(list(rows)) == 1
        assert counts.skipped == 1

"""Lint on files with known damage, and the subsets that fix it."""

import gzip
import random

import numpy as np
import pytest

from simcse.data.language import SCRIPTS, guess_language, script_letters
from simcse.data.lint import FIXES, lint
from simcse.data.subsets import dedupe, sample, split
from simcse.errors import DataError
from simcse.io.records import read_examples
from simcse.io.training_files import filter_rows

CLEAN = [
    f"sentence {a} of the {b} that is here with {c} and more"
    for a, b, c in zip(*(random.Random(s).sample(range(10**6), 60) for s in range(3)), strict=True)
]


def found(path, **options):
    report = lint(path, **options)
    return {each.name: (each.count, each.examples) for each in report.findings}, report


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "text.txt"
    lines = [line.encode() for line in CLEAN]
    lines[9:9] = [
        b"",
        CLEAN[0].upper().encode() + b"!",
        CLEAN[1].encode() + b" extra",
        b"caf\xe9 not UTF-8",
        b"... !!!",
        b"two words",
        "CafÃ© was read in the wrong encoding once and here".encode(),
        b"a <b>bold</b> word &amp; more of it stands in here",
        "Это предложение на русском языке, и его здесь быть не должно".encode(),
        " ".join(f"w{i}" for i in range(200)).encode(),
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def test_every_damage_is_counted_at_its_line_and_nothing_else(damaged):
    findings, report = found(damaged, evaluation=["Unrelated.", CLEAN[2].title()])
    bad = "13:4 (expected UTF-8, found the byte 0xe9 (invalid continuation byte). Convert the file"
    ((line,),) = (findings["unreadable rows"][1:],)
    assert line[0].startswith(bad)
    findings["unreadable rows"] = (1, (bad,))
    assert findings == {
        "unreadable rows": (1, (bad,)),
        "blank lines": (1, ("10",)),
        "rows without words": (1, ("14",)),
        "duplicate rows": (1, ("11",)),
        "near-duplicate rows": (1, ("12",)),
        "rows with an evaluation sentence": (1, ("3",)),
        "very long anchors": (1, ("19",)),
        "very short anchors": (1, ("15",)),
        "damaged encoding": (1, ("16",)),
        "markup": (1, ("17",)),
        "rows in another script": (1, ("18",)),
    }  # fmt: skip
    assert report.rows == len(CLEAN) + 8
    assert sum(report.lengths.values()) == report.rows
    assert report.lengths[161] == 1
    assert max(report.scripts, key=report.scripts.get) == "Latin"
    assert max(report.languages, key=report.languages.get) == "English"


def test_a_clean_file_has_no_findings(tmp_path):
    path = tmp_path / "text.txt.gz"
    path.write_bytes(gzip.compress("\n".join(CLEAN).encode()))
    assert found(path)[0] == {}


def test_triplets_are_compared_within_their_rows(tmp_path):
    path = tmp_path / "nli.tsv"
    rows = [(line, f"this one of {line} is positive", f"none {i}") for i, line in enumerate(CLEAN)]
    rows[3] = (
        rows[3][0],
        rows[3][0].upper(),
        "something else altogether that is longer by far than it",
    )
    rows[5] = (rows[5][0], rows[5][1], rows[5][1])
    rows[7] = (rows[7][0], rows[7][1], rows[7][0])
    rows[8] = (rows[8][0], "", "x")
    rows[9] = (rows[0][0], "another positive of the same anchor", "and another negative")
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    findings, report = found(path, evaluation=["none 20"])
    assert findings["positive is the anchor"] == (1, ("4",))
    assert findings["negative is the positive"] == (1, ("6",))
    assert findings["negative is the anchor"] == (1, ("8",))
    assert findings["unreadable rows"] == (1, ("9 (the positive is empty or missing)",))
    assert findings["repeated anchors"] == (1, ("10",))
    assert findings["rows with an evaluation sentence"] == (1, ("21",))
    shorter = sum(len(n.split()) < len(p.split()) for _, p, n in rows if p)
    longer = sum(len(n.split()) > len(p.split()) for _, p, n in rows if p)
    text = f"{shorter / (shorter + longer):.0%} of the negatives that differ in length are shorter"
    assert findings["length bias"] == (shorter, (text,))
    assert set(report.words) == {"anchor", "positive", "negative"}
    assert report.words["anchor"] == pytest.approx(
        np.mean([len(a.split()) for a, p, _ in rows if p])
    )


def test_every_finding_has_a_fix(damaged):
    assert set(found(damaged)[0]) <= set(FIXES)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\n"])
def test_a_file_without_rows_is_refused(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no usable rows"):
        lint(path)


def test_letters_are_counted_by_script():
    counted = script_letters(["abc é 1!", "日本 かな", "", "привет 😀", "ﬁ"])
    assert counted.sum(axis=1).tolist() == [4, 4, 0, 6, 1]
    assert [SCRIPTS[row.argmax()] for row in counted[[0, 3, 4]]] == ["Latin", "Cyrillic", "Latin"]
    assert counted[1][[SCRIPTS.index("Han"), SCRIPTS.index("Kana")]].tolist() == [2, 2]


@pytest.mark.parametrize(
    ("text", "script", "language"),
    [
        ("How do I go to a doctor?", "Latin", "English"),  # and no Polish "do", "i", "to", "a"
        ("The man is in the house and it was cold", "Latin", "English"),
        ("Der Mann ist in dem Haus und das ist kalt", "Latin", "German"),
        ("Les hommes sont dans une maison et le temps est froid", "Latin", "French"),
        ("El hombre está en la casa y los perros no son de él", "Latin", "Spanish"),
        ("one two", "Latin", "unknown"),
        ("xyzzy plugh quux corge grault garply", "Latin", "unknown"),
        ("日本", "Han", "Chinese"),
        ("привет", "Cyrillic", "Cyrillic"),
    ],
)
def test_languages_are_guessed_by_their_function_words(text, script, language):
    assert guess_language(text, script) == language


def test_dedupe_keeps_the_first_and_says_why_the_others_went(damaged):
    rows = lambda: read_examples(damaged, bad_lines="skip")  # noqa: E731
    kept = dedupe(rows, near=True, leaks=[CLEAN[2]])
    assert kept.dropped == {
        "without words": 1, "evaluation sentences": 1, "duplicates": 1, "near duplicates": 1
    }  # fmt: skip
    assert len(kept.lines) == len(CLEAN) + 8 - 4
    assert not set(kept.lines) & {3, 11, 12, 14}
    assert dedupe(rows).dropped == {
        "without words": 1, "evaluation sentences": 0, "duplicates": 1
    }  # fmt: skip


def test_a_split_never_parts_an_anchor(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"anchor {i % 100}\tpositive {i}\n" for i in range(1000)))
    rows = lambda: read_examples(path)  # noqa: E731
    parts = split(rows(), {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=1)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(1, 1001))
    anchors = [{(line - 1) % 100 for line in lines} for lines in parts.values()]
    assert not anchors[0] & anchors[1]
    assert not (anchors[0] | anchors[1]) & anchors[2]
    assert [len(lines) for lines in parts.values()] == [800, 100, 100]
    again = split(rows(), {"train": 0.8, "dev": 0.1, "test": 0.1}, seed=1)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    with pytest.raises(DataError, match="'dev' would be empty"):
        split(read_examples(path)[:1], {"train": 0.5, "dev": 0.5}, seed=0)


def test_a_sample_is_drawn_without_replacement_in_order(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {i}\n\n" for i in range(50)))
    lines = sample(read_examples(path), 20, seed=3)
    assert len(set(lines)) == 20
    assert list(lines) == sorted(lines)
    assert all(line % 2 == 1 for line in lines)
    assert len(sample(read_examples(path), 50, seed=0)) == 50
    with pytest.raises(DataError, match="at least 51 rows, found 50"):
        sample(read_examples(path), 51, seed=0)


def test_rows_are_copied_byte_for_byte(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'sent0,sent1\r\n"a\nb",c\r\nd,e\r\n"f ""g""",h')
    filter_rows(path, tmp_path / "out.csv", np.array([2, 5]), header=1)
    assert (tmp_path / "out.csv").read_bytes() == b'sent0,sent1\r\n"a\nb",c\r\n"f ""g""",h\n'
    text = tmp_path / "t.txt"
    text.write_bytes("one\u2028x\ntwo\r\nthree".encode())
    for name in ("o.txt", "p.txt.gz"):
        filter_rows(text, tmp_path / name, np.array([1, 3]))
    assert (tmp_path / "o.txt").read_bytes() == "one\u2028x\nthree\n".encode()
    assert (
        gzip.decompress((tmp_path / "p.txt.gz").read_bytes()) == (tmp_path / "o.txt").read_bytes()
    )
    with pytest.raises(DataError, match="of one format"):
        filter_rows(text, tmp_path / "o.tsv", np.array([1]))

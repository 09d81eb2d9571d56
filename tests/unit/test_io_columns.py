"""Which columns a reader takes: what it reports, the header rule, and doubts for the user."""

import pytest

from simcse.errors import ConfigError, DataError
from simcse.io.files import ReadCounts
from simcse.io.records import (
    Example,
    read_examples,
    read_index_rows,
    read_texts,
)
from tables import write_table

TRIPLET = Example("a b c d.", "p q r s.", ("n m o l.",))
ROW = ["a b c d.", "p q r s.", "n m o l."]


# What was decided is reported.


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("support.csv", "ticket_id,question,answer,year\nT-1,How do I do it?,Like this.,2020\n",
         "header found; anchor=question, positive=answer; ignored: ticket_id, year"),
        ("nli.tsv", "A b c.\tD e f.\tG h i.\n",
         "no header; anchor=column 1, positive=column 2, negative=column 3"),
        ("a.jsonl", '{"query": "A b", "document": "D e f", "id": 1}\n',
         "anchor=query, positive=document; ignored: id"),
        ("zh.csv", "问题,答案\n怎么重置密码?,点击链接。\n",
         "header found; anchor=问题, positive=答案"),
        ("zh.csv", "客户问题,回复内容\n如何重置我的账户密码?,请点击忘记密码的链接。\n",
         "header found; anchor=客户问题, positive=回复内容"),
        ("p.csv", ",query,positive,negative_1,negative_2\n0,A b,C d,E f,G h\n",
         "header found; anchor=query, positive=positive, negative=negative_1, "
         "negative=negative_2; ignored: (unnamed)"),
    ],
)  # fmt: skip
def test_the_decision_is_one_line(read, tmp_path, name, text, expected):
    notes = []
    read(name, text, note=notes.append)
    assert notes == [f"{tmp_path / name}: {expected}"]


def test_text_needs_no_note(read):
    notes = []
    read("a.txt", "a\n", note=notes.append)
    assert notes == []


# The header rule.


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("question\tanswer", True),
        ("Customer message\tAgent reply", True),
        ("A man eats.\tSomeone eats food.", False),
        ("entailment\tneutral", False),
        ("12\t13", False),
        ("same\tsame", False),
        ("short name\t" + "long " * 9, False),
        ("word one two three\tname", False),
    ],
)
def test_a_header_has_short_distinct_names_that_are_no_sentences(read, first, header):
    rows = read("a.tsv", f"{first}\nA man eats food.\tSomebody does eat.\n", columns="1,2")
    assert len(rows) == (1 if header else 2)


def test_words_above_words_are_a_header_only_with_a_known_name(read):
    assert len(read("a.tsv", "cat\tdog\nred\tblue\n")) == 2
    assert read("a.tsv", "query\tdog\nred\tblue\n", columns="1,2") == [Example("red", "blue")]


def test_a_column_of_words_has_a_header_only_by_a_known_name(read):
    assert list(read("a.csv", "text\nred\n")) == [Example("red")]
    assert len(read("a.csv", "heading\nA long sentence stands here.\n", columns="1")) == 2


def test_named_columns_need_a_header(read):
    with pytest.raises(DataError, match=r"a.csv:1: expected a header with x, y, found A man eats."):
        read("a.csv", "A man eats.,Some one does.\n", columns=["x", "y"])
    with pytest.raises(DataError, match="has the column 'sent0' twice"):
        read("a.csv", "sent0,sent0,sent1\n1,2,3\n", columns="sent0,sent1")


def test_the_header_line_is_counted_for_copies(tmp_path):
    counts = ReadCounts()
    (tmp_path / "a.csv").write_text("\nsent0,sent1\na b,c d\n")
    read_examples(tmp_path / "a.csv", counts=counts)
    assert (counts.header, counts.rows, counts.blank) == (2, 1, 1)


# Doubts stop with exit code 3 and name the columns.


@pytest.mark.parametrize(
    ("name", "text", "seen"),
    [
        ("a.tsv", "A b c\tD e f\tG h i\tJ k l\n", "found 4: column 1 .text., .*--columns"),
        ("a.csv", "nr,frage,antwort\n1,Was ist das hier?,Ein Test.\n", r"nr \(numbers\), frage"),
        ("a.csv", "nr,frage,antwort\nT-1,Was ist das hier?,Ein Test.\n", r"nr \(ids\), frage"),
        ("a.tsv", "1\tA man eats.\tSomeone eats.\n0\tA b c.\tD e.\n", r"column 1 \(numbers\)"),
        ("a.tsv", "A man eats.\tSomeone eats.\t0.25\n", r"column 3 \(numbers\)"),
        ("a.tsv", "entailment\tA man eats.\tSomeone eats.\n", r"column 1 \(NLI labels\)"),
        ("a.tsv", "MSRpar\t5.0\tA man eats.\tSomeone eats.\n" * 4, r"\(labels\), column 2 \(numb"),
        ("a.csv", "sentence1,sentence2,score\nA man eats.,Someone eats.,5\n", "with 'score'"),
        ("a.csv", "premise,hypothesis,label\nA b.,C d.,neutral\n", "'label' are not all"),
        ("a.tsv", "alone here\n", "expected 2 or more columns"),
        ("a.jsonl", '{"a": 1, "b": "A text of it"}\n', r"a \(numbers\), b \(text\)"),
        ("a.jsonl", '{"a": "x y z", "b": "x y", "c": "x y", "d": "x y"}\n', "found 4: a .text., b"),
        ("a.jsonl", '["alone here"]\n', "expected 2 or more columns"),
        ("a.jsonl", "[]\n", "expected columns; found 0"),
    ],
)  # fmt: skip
def test_d14_doubts_ask_for_columns(read, name, text, seen):
    with pytest.raises(DataError, match=seen) as error:
        read(name, text, bad_lines="skip")
    assert error.value.exit_code == 3
    assert "data.columns" in str(error.value)


def test_d14_columns_settle_a_doubt(read):
    rows = read("a.tsv", "1\tA man eats.\tSomeone eats.\n", columns="2,3")
    assert rows == [Example("A man eats.", "Someone eats.")]
    assert read("a.tsv", "alone here\n", columns="1") == [Example("alone here")]
    text = "sentence1,sentence2,score\nA man eats.,Someone eats.,5\n"
    assert read("a.csv", text, columns="sentence1,sentence2")[0].positive == "Someone eats."


def test_d14_several_texts_are_a_doubt_for_encoding(tmp_path):
    path = write_table(tmp_path / "a.csv", ["title", "story"], [["The end", "It was so long."]])
    with pytest.raises(DataError, match=r"expected one column of text; found 2: .*such as title"):
        read_texts(path)
    with pytest.raises(DataError, match="expected one column of text"):
        list(read_index_rows(path))
    assert list(read_texts(path, columns="story")) == ["It was so long."]
    numbers = write_table(tmp_path / "b.csv", None, [["17"], ["18"]])
    with pytest.raises(DataError, match=r"found 1: column 1 \(numbers\)"):
        read_texts(numbers)
    assert list(read_texts(numbers, columns="1")) == ["17", "18"]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("0,1", "names or numbers from 1"),
        ("a,,b", "names or numbers from 1"),
        ("anchr=1", "Did you mean 'anchor'"),
        ("anchor=1,2", "expected role=column"),
        ("positive=1", "no column for anchor"),
        ("anchor=1,negative=2", "no column for positive"),
        ("anchor=1,anchor=2", "two columns for anchor"),
    ],
)
def test_malformed_columns_are_a_usage_error(read, columns, problem):
    with pytest.raises(ConfigError, match=problem) as error:
        read("a.tsv", "a\tb\n", columns=columns)
    assert error.value.exit_code == 2


def test_too_many_columns_for_the_reader(tmp_path):
    with pytest.raises(ConfigError, match="expected columns for text, found 'a,b'"):
        read_texts(write_table(tmp_path / "a.csv", ["a", "b"], [["x y", "z"]]), columns="a,b")


@pytest.mark.parametrize("name", ["a.tsv", "a.jsonl", "a.parquet"])
def test_a_column_that_is_not_there_is_named(tmp_path, name):
    names = None if name == "a.tsv" else ["anchor", "positive"]
    path = write_table(tmp_path / name, names, [["a b.", "c d."]])
    with pytest.raises(DataError, match="no column '3', the file has: "):
        read_examples(path, columns="1,2,3")
    with pytest.raises(DataError, match=r"header with|no column 'hard_neg'"):
        read_examples(path, columns="anchor,positive,hard_neg")


def test_a_text_file_has_one_column(read):
    assert read("a.txt", "a\n", columns="text") == read("a.txt", "a\n", columns="1")
    with pytest.raises(DataError, match=r"a.txt: a .txt file has one column, text"):
        read("a.txt", "a\n", columns="question,answer")

"""`read_examples`: formats, the header rule, bad rows by physical line."""

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.errors import ConfigError, DataError
from simcse.io.benchmarks import data_folder
from simcse.io.records import Example, as_pair, read_examples
from simcse.io.files import ReadCounts, clean_text

TRIPLET = Example("a", "p", ("n",))
REFERENCE = ("sent0", "sent1", "hard_neg")


@pytest.fixture
def read(tmp_path):
    def write_and_read(name, text, **options):
        path = tmp_path / name
        data = text.encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return read_examples(path, **options)

    return write_and_read


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_is_unsupervised(read, name):
    assert read(name, "a\n\nb\n") == [Example("a"), Example("b")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "a\tp\tn\n"),
        ("a.tsv.gz", "a\tp\tn\n"),
        ("a.csv", 'a,"p",n\n'),
        ("a.csv.gz", "a,p,n\n"),
        ("a.jsonl", '{"anchor": "a", "positive": "p", "negatives": ["n"]}\n'),
        ("a.jsonl", '{"anchor": "a", "positive": "p", "negative": "n"}\n'),
        ("a.jsonl", '{"sent0": "a", "sent1": "p", "hard_neg": "n", "id": 7}\n'),
        ("a.jsonl.gz", '["a", "p", "n"]\n'),
    ],
)
def test_one_triplet_in_every_text_format(read, name, text):
    assert read(name, text) == [TRIPLET]


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    columns = {"anchor": ["a", "b"], "positive": ["p", None], "negatives": [["n"], []]}
    parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=r"a.parquet:2: the positive is empty or missing"):
        read_examples(path)
    assert read_examples(path, bad_lines="skip") == [TRIPLET]
    assert read_examples(path, columns=["anchor"]) == [Example("a"), Example("b")]
    with pytest.raises(DataError, match="no column 'x'"):
        read_examples(path, columns=["x"])


def test_several_files_keep_their_order(tmp_path):
    (tmp_path / "b.txt").write_text("b\n")
    (tmp_path / "a.tsv").write_text("a\tp\n")
    counts = ReadCounts()
    paths = [tmp_path / "b.txt", str(tmp_path / "a.tsv")]
    assert read_examples(paths, counts=counts) == [Example("b"), Example("a", "p")]
    assert counts == ReadCounts(rows=2)


def test_a_limit_reads_no_further_than_it_must(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.tsv"
    first.write_text("one\ntwo\n")
    second.write_bytes(b"three\tfour\n\xff\n")
    rows = read_examples([first, second], limit=3)
    assert [row.anchor for row in rows] == ["one", "two", "three"]
    with pytest.raises(DataError, match=f"{second}:2"):
        read_examples([first, second], limit=4)


def test_rows_may_differ_in_hard_negatives(read):
    expected = [Example("a", "p"), Example("b", "q", ("n", "m")), Example("c", "r")]
    assert read("a.tsv", "a\tp\nb\tq\tn\tm\nc\tr\t\t\n") == expected


def test_tsv_has_no_quoting(read):
    assert read("a.tsv", '"a\tp"\n') == [Example('"a', 'p"')]


def test_csv_cells_may_hold_commas_quotes_and_lines(read):
    assert read("a.csv", '"a, ""b""","p\nq"\n') == [Example('a, "b"', "p q")]


# The header rule: named, numbered, or none and then never a usual column name.


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_named_columns_use_the_header(read, name):
    text = "id,hard_neg,sent1,sent0\n1,n,p,a\n".replace(",", "," if name == "a.csv" else "\t")
    assert read(name, text, columns=REFERENCE) == [TRIPLET]


def test_numbered_columns_make_every_row_data(read):
    rows = read("a.tsv", "label\tanchor\tpositive\n1\ta\tp\n", columns=["2", "3"])
    assert rows == [Example("anchor", "positive"), Example("a", "p")]
    assert read("a.tsv", "a\tb\n", columns=["1"]) == [Example("a")]


def test_an_unnamed_header_is_never_trained_on(read):
    with pytest.raises(DataError, match=r"a.csv:1: .* columns=sent0,sent1,hard_neg if it is, "):
        read("a.csv", "sent0,sent1,hard_neg\na,p,n\n")
    with pytest.raises(DataError, match=r"columns=1,2 if it is data"):
        read("a.tsv", "Premise\twhatever\na\tp\n", bad_lines="skip")


def test_a_first_row_is_never_dropped(read):
    assert len(read("a.csv", "a,p\nb,q\n")) == 2
    with pytest.raises(DataError, match=r"a.csv:1: expected a header with sent0.* got a,p"):
        read("a.csv", "a,p\nb,q\n", columns=REFERENCE)


def test_a_doubled_header_name_is_refused(read):
    with pytest.raises(DataError, match="once each"):
        read("a.csv", "sent0,sent0,sent1\n1,2,3\n", columns=["sent0", "sent1"])


def test_column_zero_is_refused(read):
    with pytest.raises(ConfigError, match="numbered from 1"):
        read("a.tsv", "a\tb\n", columns=["0", "1"])


# Bad rows.


@pytest.mark.parametrize(
    ("name", "text", "columns", "problem"),
    [
        ("a.tsv", "a\tp\nalone\n", (), r"a.tsv:2: expected 2 or more columns"),
        ("a.tsv", "a\tp\n\n\tp\n", (), r"a.tsv:3: the anchor is empty"),
        ("a.csv", "a,p\nb,\n", (), r"a.csv:2: the positive is empty"),
        ("a.csv", "sent0,sent1\na,p\nb\n", REFERENCE[:2], r"a.csv:3: the positive is .*missing"),
        ("a.csv", "sent0,sent1\na,p\nb,q,r\n", REFERENCE[:2], r"a.csv:3: expected 2 .* got 3"),
        ("a.jsonl", '["a", "p"]\n{"anchor": "a"}\n', (), r"a.jsonl:2: expected the keys"),
        ("a.jsonl", '["a", "p"]\n["a", 1]\n', (), r"a.jsonl:2: expected text"),
        ("a.jsonl", '["a", "p"]\n["a"]\n', (), r"a.jsonl:2: expected an object or a list"),
        ("a.jsonl", '["a", "p"]\n{"anchor": "a", "positive": ["p"]}\n', (), r"a.jsonl:2: expected"),
    ],
)
def test_d6_bad_rows_name_the_physical_line(read, name, text, columns, problem):
    with pytest.raises(DataError, match=problem) as error:
        read(name, text, columns=columns)
    assert error.value.exit_code == 3
    counts = ReadCounts()
    assert len(read(name, text, columns=columns, bad_lines="skip", counts=counts)) == 1
    assert counts.skipped == 1


def test_d6_lines_inside_quotes_are_counted(read):
    with pytest.raises(DataError, match=r"a.csv:5: the positive"):
        read("a.csv", 'a,"p\n\nq"\nb,q\nc,\n')


def test_d6_an_open_quote_names_where_it_opened(read):
    with pytest.raises(DataError, match=r"a.csv:2: bad CSV record, is a quote left open"):
        read("a.csv", 'a,p\nb,"q\nc,r\nd,s\n')
    with pytest.raises(DataError, match=r"a.csv:2: bad CSV record"):
        read("a.csv", 'a,p\nb,"q\nc,"r"\nd,s\n')
    assert read("a.csv", 'a,p\nb,"q\nc,r\n', bad_lines="skip") == [Example("a", "p")]


def test_d1_a_bad_byte_spoils_its_whole_csv_record(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,p\nb,"q\n\xff\nr"\nc,s\n')
    with pytest.raises(DataError, match=r"a.csv:3:1:"):
        read_examples(path)
    assert read_examples(path, bad_lines="skip") == [Example("a", "p"), Example("c", "s")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d2_byte_order_mark_and_crlf(read, name):
    comma = "," if name == "a.csv" else "\t"
    text = f"\ufeffanchor{comma}positive\r\na{comma}p\r\n"
    assert read(name, text, columns=["anchor", "positive"]) == [Example("a", "p")]


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d3_unicode_line_separators(read, name):
    comma = "," if name == "a.csv" else "\t"
    text = f"a\u2028b{comma}p\u0085q\u2029r\n"
    assert read(name, text) == [Example("a\u2028b", "p\u0085q\u2029r")]


def test_d4_blank_rows_are_counted(read):
    counts = ReadCounts()
    read("a.csv", "\na,p\n,\n  \nb,q\n", counts=counts)
    assert counts == ReadCounts(rows=2, blank=3)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv"])
def test_d7_nul_is_a_space(read, name):
    comma = "," if name == "a.csv" else "\t"
    assert read(name, f"a\0b{comma}p\x07\n") == [Example("a b", "p")]


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.csv", "a.jsonl"])
def test_d8_no_usable_rows(read, name):
    with pytest.raises(DataError, match=r"no usable rows \(0 rows, 2 blank"):
        read(name, "\n \n")
    with pytest.raises(DataError, match="no usable rows"):
        read(name, "")


def test_unknown_format_names_the_known_ones(read):
    with pytest.raises(DataError, match=r"expected \.txt, \.tsv, .* got the format 'dat'"):
        read("a.dat", "a\n")


sentences = (
    st.text(min_size=1)
    .map(clean_text)
    .filter(lambda text: text and "\ufeff" not in text and text.isprintable())
)
examples = st.lists(
    st.builds(Example, sentences, sentences, st.lists(sentences, max_size=3).map(tuple)), min_size=1
)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
@given(expected=examples)
def test_round_trip(tmp_path_factory, name, expected):
    rows = [[example.anchor, example.positive, *example.negatives] for example in expected]
    out = io.StringIO()
    if name == "a.csv":
        csv.writer(out).writerows([["x", "y"], *rows])
    elif name == "a.tsv":
        out.writelines("\t".join(row) + "\n" for row in [["x", "y"], *rows])
    else:
        out.writelines(json.dumps(row) + "\n" for row in [["x", "y"], *rows])
    path = tmp_path_factory.mktemp("examples") / name
    path.write_bytes(out.getvalue().encode())
    assert read_examples(path) == [Example("x", "y"), *expected]


@pytest.mark.data
@pytest.mark.skipif(not (data_folder() / "nli").is_dir(), reason="no data folder")
def test_real_triplets_and_labeled_pairs():
    folder = data_folder() / "nli"
    triplets = read_examples(folder / "triplets.tsv")
    assert len(triplets) == 53_546
    assert all(len(example.negatives) == 1 for example in triplets)
    labeled = read_examples(folder / "nli_labelled.tsv.gz", columns=["2", "3"])
    assert len(labeled) == 199_590


def test_a_pair_is_anchor_and_positive_and_a_single_sentence_is_named_by_its_line(read, tmp_path):
    (triplet,) = read("a.tsv", "a\tp\tn\n")
    assert as_pair(triplet, tmp_path / "a.tsv") == ("a", "p")
    _, alone = read("b.txt", "first\nsecond\n")
    with pytest.raises(DataError, match=r"b\.txt:2: expected pairs, got one sentence"):
        as_pair(alone, tmp_path / "b.txt")

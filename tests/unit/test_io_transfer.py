"""Transfer tasks from disk; the known files by rows and hash."""

import pytest

from simcse.errors import DataError, UsageError
from simcse.io import benchmarks
from simcse.io.benchmarks import TRANSFER_SPLITS, load_transfer_task, read_labeled


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    return path


def test_sentences_and_pairs(tmp_path):
    single = read_labeled(write(tmp_path / "mr.tsv", "1\tgood , very", "", "0\tbad\u2028film"))
    assert (single.labels, single.first, single.second) == (
        ("1", "0"),
        ("good , very", "bad\u2028film"),
        (),
    )
    pairs = read_labeled(write(tmp_path / "mrpc.tsv", "1\ta\tb", "0\tc\td"))
    assert pairs.texts == (("a", "c"), ("b", "d"))


@pytest.mark.parametrize(
    ("rows", "where"),
    [
        (["1"], ":1: expected label, sentence"),
        (["1\ta", "0\tb\tc"], ":2: expected 2 columns"),
        (["1\ta", "0\t "], ":2: expected 2 columns"),
        ([""], "no usable rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, where):
    with pytest.raises(DataError, match=where):
        read_labeled(write(tmp_path / "mr.tsv", *rows))


def test_a_truncated_or_changed_file_is_caught(tmp_path, monkeypatch):
    path = write(tmp_path / "transfer_senteval" / "cr.tsv", "1\ta", "0\tb")
    with pytest.raises(DataError, match="expected 3,775 rows, found 2"):
        load_transfer_task("cr", folder=tmp_path)
    known = benchmarks.KnownFile("transfer_senteval/cr.tsv", 2, "0" * 64)
    monkeypatch.setattr(benchmarks, "known_files", lambda: {known.path: known})
    task = load_transfer_task("cr", folder=tmp_path)
    assert task.notes == (f"{path} has the right rows but not the known SHA-256",)
    assert task.sentences == ["a", "b"]


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match="unknown transfer task 'sst'"):
        load_transfer_task("sst", folder=tmp_path)
    with pytest.raises(UsageError, match="text must be"):
        load_transfer_task("mr", text="moses", folder=tmp_path)
    with pytest.raises(DataError, match="no data set"):
        load_transfer_task("trec", folder=tmp_path)


@pytest.mark.data
def test_the_known_files(data_folder):
    for name, parts in TRANSFER_SPLITS.items():
        for text in ("senteval", "natural"):
            task = load_transfer_task(name, text=text, folder=data_folder)
            assert tuple(task.splits) == parts
            assert not task.notes

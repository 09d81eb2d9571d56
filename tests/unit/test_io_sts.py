"""`StsTask` from a file, and every way a row can be wrong."""

import hashlib

import numpy as np
import pytest

from simcse.errors import DataError
from simcse.io.benchmarks import join_sts, read_sts

GOOD = "MSRpar\t4.4\tfirst one\tsecond one\nOnWN\t0\tfirst two\tsecond two\tNEUTRAL\n"


def test_columns_become_a_task(tmp_path):
    path = tmp_path / "sts12.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n\r\n").encode())
    task = read_sts(path)
    assert (task.name, task.subsets) == ("sts12", ("MSRpar", "OnWN"))
    assert (task.first, task.second) == (
        ("first one", "first two"),
        ("second one", "second two"),
    )
    np.testing.assert_array_equal(task.scores, [4.4, 0.0])
    assert task.scores.dtype == np.float64
    assert task.path == path
    assert task.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("s\t1\ta", r"expected 4 or 5 columns .*, found 3"),
        ("s\t1\ta\tb\tc\td", r"found 6"),
        ("s\thigh\ta\tb", r"expected a finite number as score, found 'high'"),
        ("s\tnan\ta\tb", r"finite number as score, found 'nan'"),
        ("s\tinf\ta\tb", r"finite number as score, found 'inf'"),
        ("s\t\ta\tb", r"finite number as score, found ''"),
        ("s\t1\ta\t ", r"the subset or a sentence is empty"),
        ("\t1\ta\tb", r"the subset or a sentence is empty"),
    ],
)
def test_bad_rows_name_file_and_line(tmp_path, row, problem):
    path = tmp_path / "bad.tsv"
    path.write_text(f"{GOOD}\n{row}\n")
    with pytest.raises(DataError, match=rf"bad.tsv:4: .*{problem}"):
        read_sts(path)


def test_d8_an_empty_set_is_refused(tmp_path):
    (tmp_path / "empty.tsv").write_text("\n")
    with pytest.raises(DataError, match="no usable rows"):
        read_sts(tmp_path / "empty.tsv")


def test_joined_tasks_follow_one_another(tmp_path):
    for name in ("a.tsv", "b.tsv"):
        (tmp_path / name).write_text(GOOD)
    parts = [read_sts(tmp_path / name) for name in ("b.tsv", "a.tsv")]
    task = join_sts("both", parts)
    assert task.first == parts[0].first + parts[1].first
    assert len(task.scores) == len(task.subsets) == len(task.second) == 4
    assert task.path == tmp_path
    assert task.sha256 != parts[0].sha256

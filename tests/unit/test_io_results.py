"""Results: stable bytes, no NaN, clear errors."""

from pathlib import Path

import numpy as np
import pytest

from simcse.errors import ArtifactError
from simcse.io.results import read_results, write_results


def test_plain_values_round_trip(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_results(
        path,
        {
            "spearman": np.float64(76.25),
            "counts": {"rows": np.int64(3), "zero": 0},
            "subsets": ("été", Path("a/b")),
            "vector": np.array([1.0, np.nan], dtype=np.float32),
            "flag": np.bool_(True),
        },
    )
    assert read_results(path) == {
        "spearman": 76.25,
        "counts": {"rows": 3, "zero": 0},
        "subsets": ["été", "a/b"],
        "vector": [1.0, None],
        "flag": True,
    }


def test_the_same_results_are_the_same_bytes(tmp_path):
    write_results(tmp_path / "a.json", {"b": 1, "a": {"d": 2, "c": 3}})
    write_results(tmp_path / "b.json", {"a": {"c": 3, "d": 2}, "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert (tmp_path / "a.json").read_text().endswith("}\n")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_number_that_is_not_finite_becomes_null(tmp_path, number):
    write_results(tmp_path / "a.json", {"spearman": number})
    assert (tmp_path / "a.json").read_text() == '{\n  "spearman": null\n}\n'


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"a": ', "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1]", "JSON object of results, got a list"),
    ],
)
def test_damaged_results_are_refused(tmp_path, data, problem):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(ArtifactError, match=problem) as error:
        read_results(tmp_path / "a.json")
    assert error.value.exit_code == 4


def test_missing_results_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"cannot read results .*: No such file"):
        read_results(tmp_path / "none.json")

"""The bound on the largest eigenvalue, against plain loops over the definition."""

import math

import numpy as np
import pytest

from simcse.errors import DataError, NumericError
from simcse.evaluate import isotropy
from simcse.evaluate.isotropy import count_falls, isotropy_bound


def by_loops(vectors, temperature):
    """Each quantity from the matrix of cosines, cell by cell."""
    rows = [[x / math.hypot(*row) for x in row] for row in vectors]
    cosines = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in rows] for x in rows]
    count = len(rows)
    terms = [math.log(sum(math.exp(cell / temperature) for cell in row) / count) for row in cosines]
    negative = sum(cosines[i][j] < 0 for i in range(count) for j in range(count) if i != j)
    return {
        "log_mean_exp": sum(terms) / count,
        "mean": sum(map(sum, cosines)) / count**2,
        "largest_eigenvalue": float(np.linalg.eigvalsh(np.array(cosines))[-1]),
        "total": sum(map(sum, cosines)),
        "negative_share": negative / (count * (count - 1)),
    }


@pytest.mark.parametrize("shape", [(2, 5), (7, 3), (40, 6)])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_each_step_is_its_definition(shape, temperature, monkeypatch):
    monkeypatch.setattr(isotropy, "TILE", 16)
    vectors = np.random.default_rng(0).normal(0.4, 1, shape)
    found = isotropy_bound(vectors, temperature=temperature)
    for name, value in by_loops(vectors.tolist(), temperature).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-10), name
    assert (found.sentences, found.temperature) == (shape[0], temperature)


@pytest.mark.parametrize("seed", range(20))
def test_what_must_hold_holds(seed):
    random = np.random.default_rng(seed)
    any_signs = isotropy_bound(random.normal(random.normal(), 1, (30, 8)))
    assert any_signs.jensen_holds
    assert any_signs.lower_bound_holds
    positive = isotropy_bound(random.random((30, 8)))
    assert positive.negative_share == 0
    assert positive.jensen_holds
    assert positive.lower_bound_holds
    assert positive.upper_bound_holds


def test_with_negative_cosines_the_sum_is_no_bound():
    opposed = isotropy_bound([[1.0, 0.0], [-2.0, 0.0]])
    assert (opposed.largest_eigenvalue, opposed.total) == (2.0, 0.0)
    assert opposed.negative_share == 1
    assert not opposed.upper_bound_holds
    assert opposed.lower_bound_holds


def test_equality_where_all_sentences_are_one():
    found = isotropy_bound([[0.3, 0.1, 0.7]] * 9)
    assert found.log_mean_exp == pytest.approx(1 / 0.05)
    assert found.largest_eigenvalue == pytest.approx(9)
    assert found.jensen_holds
    assert found.lower_bound_holds
    assert found.upper_bound_holds


def test_no_overflow_at_a_small_temperature():
    found = isotropy_bound(np.eye(4), temperature=1e-4)
    assert found.log_mean_exp == pytest.approx(1e4 - math.log(4))


def test_falls_are_counted():
    assert count_falls([5.0, 4.0, 4.5, 4.5, 1.0]) == 2
    assert count_falls([1.0]) == count_falls([]) == 0


@pytest.mark.parametrize("arguments", [{"temperature": 0}, {"temperature": float("nan")}])
def test_what_cannot_be_measured_is_refused(arguments):
    with pytest.raises(DataError, match="temperature above 0"):
        isotropy_bound(np.eye(3), **arguments)
    with pytest.raises(DataError, match="at least two vectors"):
        isotropy_bound(np.ones((1, 3)))
    with pytest.raises(NumericError):
        isotropy_bound([[np.nan, 1.0], [1.0, 0.0]])

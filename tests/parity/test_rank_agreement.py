"""Agreement of two orders, against counting in plain Python and scipy's exact test."""

from itertools import permutations
from math import factorial, sqrt

import numpy as np
import pytest
from scipy import stats

from simcse.evaluate import significance
from simcse.evaluate.significance import kendall, order_p, rank_agreement

PAPER = [82.5, 77.8, 71.4, 63.6, 75.9, 75.9]


def pairs(first, second):
    """Agreeing minus disagreeing pairs, by the definition."""
    found = 0
    for i in range(len(first)):
        for j in range(i):
            product = (first[i] - first[j]) * (second[i] - second[j])
            found += (product > 0) - (product < 0)
    return found


def tau_b(first, second):
    whole = len(first) * (len(first) - 1) / 2
    untied = [
        whole - sum(1 for i in range(len(x)) for j in range(i) if x[i] == x[j])
        for x in (first, second)
    ]
    return pairs(first, second) / sqrt(untied[0] * untied[1])


CASES = [
    ([50.0, 49.1, 44.0, 40.2, 47.0, 46.0], PAPER),  # one pair the other way round, a tie of theirs
    ([50.0, 41.1, 44.0, 45.2, 47.0, 47.0], PAPER),  # ties of both
    ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
    ([4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 4.0]),
]


@pytest.mark.parametrize(("ours", "theirs"), CASES)
def test_tau_and_p_are_what_counting_gives(ours, theirs):
    assert kendall(ours, theirs) == pytest.approx(tau_b(ours, theirs))
    observed = pairs(ours, theirs)
    as_near = sum(pairs(order, theirs) >= observed for order in permutations(ours))
    assert order_p(ours, theirs) == pytest.approx(as_near / factorial(len(ours)))


def test_p_is_scipys_exact_one_where_nothing_ties():
    ours, theirs = [3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    expected = stats.kendalltau(ours, theirs, method="exact", alternative="greater").pvalue
    assert order_p(ours, theirs) == pytest.approx(expected)


def test_of_many_rows_orders_are_drawn(monkeypatch):
    monkeypatch.setattr(significance, "PERMUTATIONS", 5_000)
    ours, theirs = [3.0, 1.0, 2.0, 5.0, 4.0, 7.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    expected = stats.kendalltau(ours, theirs, method="exact", alternative="greater").pvalue
    drawn = order_p(ours, theirs)
    assert drawn == pytest.approx(expected, abs=0.005)
    assert drawn == order_p(ours, theirs)
    assert order_p(theirs, theirs) >= 1 / (1 + significance.PERMUTATIONS)  # never 0


def test_p_is_uniform_where_rows_do_not_differ():
    random = np.random.default_rng(0)
    found = [order_p(random.normal(size=6).tolist(), PAPER) for _ in range(400)]
    assert sum(p <= 0.05 for p in found) / len(found) == pytest.approx(0.05, abs=0.03)


def test_agreement_takes_means_and_shows_each_seed():
    ours = [[9, 9, 1], [5, 6, 7], [1, 2, 3], [0, 0, 0]]
    found = rank_agreement(ours, [4, 3, 2, 1])
    assert (found.rows, found.tau) == (4, pytest.approx(1.0))
    assert found.p == found.least_p == pytest.approx(1 / 24)
    assert found.by_seed == pytest.approx((1.0, 1.0, tau_b([1, 7, 3, 0], [4, 3, 2, 1])))


def test_ties_of_theirs_raise_the_least_p():
    found = rank_agreement([[1, 2, 3], [4, 5, 6], [7, 8, 9], [9, 9, 9]], [60.0, 70.0, 80.0, 80.0])
    assert found.p == found.least_p == pytest.approx(2 / 24)


def test_without_three_seeds_there_is_no_p():
    assert rank_agreement([[1, 2], [3, 4], [5, 6]], [1, 2, 3]).p is None
    assert rank_agreement([[1, 2, 3], [3, 4], [5, 6, 7]], [1, 2, 3]).p is None
    assert rank_agreement([[1, 2, 3], [3, 4, 5], [5, 6, 7]], [1, 2, 3]).p is not None


def test_an_order_needs_two_different_rows():
    assert rank_agreement([[1, 2, 3]], [1]) is None
    assert rank_agreement([[1, 2, 3], [1, 2, 3]], [1, 2]) is None
    assert rank_agreement([], []) is None

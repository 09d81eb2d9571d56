"""Paired bootstrap against plain resampling, one list at a time."""

import numpy as np
import pytest
import scipy.stats

from simcse.errors import DataError
from simcse.evaluate.significance import (
    RESAMPLES,
    compare_average,
    compare_means,
    compare_spearman,
    mean_intervals,
    spearman_rows,
)


@pytest.fixture
def random():
    return np.random.default_rng(2)


def test_spearman_rows_is_scipys_row_by_row(random):
    first = random.integers(0, 9, (20, 40)).astype(float)  # many ties
    second = first + random.normal(size=(20, 40))
    found = spearman_rows(first, second)
    for row in range(20):
        expected = scipy.stats.spearmanr(first[row], second[row]).statistic
        assert found[row] == pytest.approx(expected, abs=1e-12)


def test_spearman_of_a_constant_is_0(random):
    assert spearman_rows(np.ones(9), random.normal(size=9)) == 0


def test_the_interval_agrees_with_plain_resampling_of_pairs(random):
    gold = random.integers(0, 6, 120).astype(float)
    first, second = (gold + spread * random.normal(size=120) for spread in (2.0, 1.5))
    plain = []
    for _ in range(2000):
        rows = random.integers(0, 120, 120)  # the same pairs for both models
        scores = [
            scipy.stats.spearmanr(side[rows], gold[rows]).statistic for side in (first, second)
        ]
        plain.append(100 * (scores[1] - scores[0]))
    found, distribution = compare_spearman(first, second, gold)
    assert found.low == pytest.approx(np.percentile(plain, 2.5), abs=1.5)
    assert found.high == pytest.approx(np.percentile(plain, 97.5), abs=1.5)
    assert distribution.std() == pytest.approx(np.std(plain), rel=0.1)
    again, _ = compare_spearman(first, second, gold)
    assert again == found  # seeded


def test_intervals_of_means_are_the_plain_bootstraps(random):
    scores = random.random((80, 2)) * [1, 10]
    found = mean_intervals(scores)
    means = np.array([scores[random.integers(0, 80, 80)].mean(axis=0) for _ in range(4000)])
    expected = np.percentile(means, (2.5, 97.5), axis=0).T
    assert found == pytest.approx(expected, rel=0.05)
    assert mean_intervals(scores[:1]).tolist() == [[x, x] for x in scores[0].tolist()]


def test_a_clear_difference_is_significant_and_noise_is_not(random):
    gold = random.integers(0, 6, 400).astype(float)
    good, bad = gold + random.normal(size=400), gold + 4 * random.normal(size=400)
    found, resampled = compare_spearman(bad, good, gold)
    assert found.first == pytest.approx(100 * scipy.stats.spearmanr(bad, gold).statistic)
    assert found.second == pytest.approx(100 * scipy.stats.spearmanr(good, gold).statistic)
    assert 0 < found.low < found.difference < found.high
    assert found.p == pytest.approx(2 / (RESAMPLES + 1))
    assert len(resampled) == RESAMPLES
    same, _ = compare_spearman(good, good + 1e-9 * random.normal(size=400), gold)
    assert same.p > 0.05
    assert same.low <= 0 <= same.high


def test_p_values_are_uniform_where_nothing_differs(random):
    """Of many comparisons of equally good models about one in ten has p below 0.1."""
    found = [
        compare_means(random.random(150) < 0.7, random.random(150) < 0.7, seed=trial)[0].p
        for trial in range(200)
    ]
    assert 0.03 < np.mean(np.array(found) < 0.1) < 0.2


def test_accuracy_interval_is_scipys(random):
    first, second = random.random(300) < 0.6, random.random(300) < 0.75
    found, _ = compare_means(first, second)
    gain = 100 * (second.astype(float) - first)
    expected = scipy.stats.bootstrap(
        (gain,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.difference == pytest.approx(gain.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1)


def test_an_average_is_narrower_than_its_parts(random):
    parts = [
        compare_means(random.random(200) < 0.6, random.random(200) < 0.7, seed=s) for s in range(4)
    ]
    whole = compare_average(parts)
    assert whole.difference == pytest.approx(np.mean([part.difference for part, _ in parts]))
    assert whole.high - whole.low < min(part.high - part.low for part, _ in parts)


def test_other_items_are_refused(random):
    with pytest.raises(DataError, match="two or more pairs"):
        compare_spearman(np.ones(3), np.ones(4), np.ones(3))
    with pytest.raises(DataError, match="two or more examples"):
        compare_means(np.ones(3), np.ones(4))

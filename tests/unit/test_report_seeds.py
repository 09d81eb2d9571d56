"""Statistics over seeds, against scipy and by counting."""

import numpy as np
import pytest
from scipy import stats

from simcse.errors import DataError
from simcse.report.seeds import compare_seeds, differences_table, seeds_table
from simcse.report.tables import Spread


def runs(**scores):
    count = len(next(iter(scores.values())))
    at = [{name: values[seed] for name, values in scores.items()} for seed in range(count)]
    return {seed: {"start": metrics, "best": metrics} for seed, metrics in enumerate(at)}


SCORES = [70.1, 70.9, 69.5, 70.4, 71.2]


def test_the_interval_is_students():
    table = seeds_table(runs(dev=SCORES))
    *_, spread, low, high = table.rows
    assert spread[1] == Spread(
        pytest.approx(np.mean(SCORES)), pytest.approx(np.std(SCORES, ddof=1))
    )
    expected = stats.t.interval(0.95, 4, loc=np.mean(SCORES), scale=stats.sem(SCORES))
    assert (low[1], high[1]) == pytest.approx(expected)


def test_one_seed_has_no_interval_and_an_undefined_score_none():
    assert seeds_table(runs(dev=[70.0])).rows[-1][1] is None
    assert seeds_table(runs(dev=[70.0, None, 71.0])).rows[-2][1] is None


def test_a_paired_difference_that_is_real_and_one_that_is_not():
    better = [score + shift for score, shift in zip(SCORES, (1.0, 1.2, 0.9, 1.1, 0.8), strict=True)]
    (found,) = compare_seeds(runs(dev=SCORES), runs(dev=better))
    assert found.difference == pytest.approx(1.0)
    assert found.bootstrap_p < 0.001
    assert found.sign_flip_p == 2 / 2**5
    (same,) = compare_seeds(runs(dev=SCORES), runs(dev=SCORES))
    assert (same.bootstrap_p, same.sign_flip_p) == (1, 1)
    table = differences_table([found])
    assert table.rows[0][:2] == ("dev", 5)


def test_the_bootstrap_agrees_with_the_t_test_where_both_hold():
    generator = np.random.default_rng(0)
    first = generator.normal(70, 1, 40)
    noise = generator.normal(0, 1, 40)
    second = first + (noise - noise.mean()) / noise.std(ddof=1) + 0.25  # t is 0.25 * sqrt(40)
    (found,) = compare_seeds(runs(dev=list(first)), runs(dev=list(second)))
    expected = stats.ttest_rel(second, first).pvalue
    assert expected == pytest.approx(0.12, abs=0.01)
    assert found.bootstrap_p == pytest.approx(expected, abs=0.03)
    assert found.sign_flip_p == pytest.approx(expected, abs=0.03)


def test_settings_without_common_seeds_cannot_be_compared():
    with pytest.raises(DataError, match="2 or more common seeds, got 1"):
        compare_seeds(runs(dev=[1.0]), runs(dev=SCORES))


def test_a_metric_that_is_undefined_somewhere_is_left_out():
    found = compare_seeds(
        runs(dev=[1.0, None], loss=[1.0, 2.0]), runs(dev=[1.0, 2.0], loss=[1.0, 2.5])
    )
    assert [each.name for each in found] == ["loss"]

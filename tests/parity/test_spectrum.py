"""The shape of a space against plain loops and SciPy, and its intervals against resampling."""

import math

import numpy as np
import pytest
import scipy.stats

from simcse.errors import DataError, NumericError
from simcse.evaluate import spectrum as module
from simcse.evaluate.geometry import mean_cosine, uniformity
from simcse.evaluate.spectrum import effective_rank, space_statistics


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(60, 7)) + 0.5


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_neighbor_counts(rows, k):
    counts = [0] * len(rows)
    for one, row in enumerate(rows):
        others = sorted((-(row @ other), two) for two, other in enumerate(rows) if two != one)
        for _, two in others[:k]:
            counts[two] += 1
    return counts


def test_measures_match_plain_loops(vectors):
    found, rows = space_statistics(vectors), unit(vectors)
    cosines = [rows[i] @ rows[j] for i in range(60) for j in range(60) if i != j]
    assert found.mean_cosine == pytest.approx(np.mean(cosines))
    assert found.mean_cosine == pytest.approx(mean_cosine(vectors))
    assert found.negative_share == pytest.approx(np.mean(np.array(cosines) < 0))
    values = np.sqrt(np.linalg.eigvalsh(rows.T @ rows)[::-1])
    assert found.singular_values == pytest.approx(values / values[0])
    entropy = scipy.stats.entropy(values)
    assert found.effective_rank == pytest.approx(math.exp(entropy))
    assert found.effective_rank == pytest.approx(effective_rank(vectors))
    assert found.top_1 == pytest.approx(values[0] ** 2 / 60)  # the trace of unit rows is N
    assert found.top_10 == pytest.approx(1)
    skewness = scipy.stats.skew(plain_neighbor_counts(rows, 10))
    assert found.hubness == pytest.approx(skewness)


def test_the_first_direction_holds_at_least_the_mean_of_the_similarity_matrix(vectors):
    """Gao et al. 2021, section 5: the largest eigenvalue is no less than m times the mean."""
    found, rows = space_statistics(vectors), unit(vectors)
    assert found.top_1 >= (rows @ rows.T).mean()


def test_extremes():
    even = space_statistics(np.vstack([np.eye(8), -np.eye(8)]))
    assert even.effective_rank == pytest.approx(8)
    assert even.mean_cosine == pytest.approx(-1 / 15)
    collapsed = space_statistics(np.ones((20, 5)))
    assert collapsed.effective_rank == pytest.approx(1, abs=1e-6)
    assert (collapsed.top_1, collapsed.mean_cosine) == (pytest.approx(1), pytest.approx(1))
    assert space_statistics(np.zeros((20, 5))).effective_rank == 0


def test_intervals_are_those_of_resampled_lists(vectors):
    """Pairs of a sentence with its own copy do not count."""
    rows, random = unit(vectors), np.random.default_rng(5)
    means, potentials, ranks = [], [], []
    for _ in range(400):
        drawn = random.integers(0, 60, 60)
        other = drawn[:, None] != drawn
        cosines = (rows[drawn] @ rows[drawn].T)[other]
        means.append(cosines.mean())
        potentials.append(math.log(np.exp(4 * (cosines - 1)).mean()))
        ranks.append(effective_rank(rows[drawn]))
    found = space_statistics(vectors, positives=(rows[:30], rows[30:]))
    for name, center, resampled in (
        ("mean_cosine", found.mean_cosine, means),
        ("uniformity", uniformity(rows), potentials),
        ("effective_rank", found.effective_rank, ranks),
    ):
        low, high = found.intervals[name]
        assert (low + high) / 2 == pytest.approx(center)
        assert (high - low) / 2 == pytest.approx(1.96 * np.std(resampled), rel=0.2), name
    distances = ((rows[:30] - rows[30:]) ** 2).sum(axis=1)
    low, high = found.intervals["alignment"]
    assert (high - low) / 2 == pytest.approx(1.96 * distances.std() / math.sqrt(30), rel=0.2)
    assert "hubness" not in found.intervals


def test_a_large_set_is_sampled_always_alike(monkeypatch, vectors):
    monkeypatch.setattr(module, "MAX_VECTORS", 25)
    first, second = space_statistics(vectors), space_statistics(vectors)
    assert first.sentences == 25
    assert first.singular_values.tolist() == second.singular_values.tolist()


def test_refusals(vectors):
    with pytest.raises(DataError, match="at least three"):
        space_statistics(vectors[:2])
    with pytest.raises(NumericError):
        space_statistics(np.full((5, 2), np.nan))

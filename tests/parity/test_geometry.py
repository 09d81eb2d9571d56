"""Alignment and uniformity against Wang and Isola's own lines and plain loops."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from simcse.errors import DataError, NumericError
from simcse.evaluate import geometry
from simcse.evaluate.geometry import alignment, paper_geometry, uniformity
from simcse.io.benchmarks import StsTask


def wang_isola_alignment(first, second):
    """Their README: ``(x - y).norm(p=2, dim=1).pow(2).mean()`` on normalized rows."""
    first, second = normalize(torch.tensor(first)), normalize(torch.tensor(second))
    return (first - second).norm(p=2, dim=1).pow(2).mean().item()


def wang_isola_uniformity(vectors):
    """Their README: ``torch.pdist(x, p=2).pow(2).mul(-2).exp().mean().log()``."""
    distances = torch.pdist(normalize(torch.tensor(vectors)), p=2)
    return distances.pow(2).mul(-2).exp().mean().log().item()


def plain_uniformity(vectors):
    """Loops over the pairs of unit vectors."""
    unit = [[x / math.dist(row, [0] * len(row)) for x in row] for row in vectors.tolist()]
    pairs = [(one, two) for row, one in enumerate(unit) for two in unit[:row]]
    return math.log(sum(math.exp(-2 * math.dist(one, two) ** 2) for one, two in pairs) / len(pairs))


def make_task(scores, first, second):
    return StsTask(
        name="stsb",
        subsets=("news",) * len(first),
        scores=np.array(scores),
        first=tuple(first),
        second=tuple(second),
        path=Path("stsb-test.tsv"),
        sha256="0" * 64,
        notes=(),
    )


@pytest.fixture
def vectors():
    return 7 * np.random.default_rng(1).normal(size=(50, 6)) + 3  # neither unit nor centered


def test_alignment_matches_wang_and_isola(vectors):
    expected = wang_isola_alignment(vectors[:25], vectors[25:])
    assert alignment(vectors[:25], vectors[25:]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tile", [1, 7, 25, 50, 2048])
def test_uniformity_matches_wang_and_isola_whatever_the_tile(monkeypatch, vectors, tile):
    monkeypatch.setattr(geometry, "TILE", tile)
    assert uniformity(vectors) == pytest.approx(wang_isola_uniformity(vectors), abs=1e-12)
    assert uniformity(vectors) == pytest.approx(plain_uniformity(vectors), abs=1e-12)


def test_zero_rows_stay_at_the_origin_as_normalize_leaves_them(vectors):
    vectors[[3, 8]] = 0
    assert uniformity(vectors) == pytest.approx(wang_isola_uniformity(vectors), abs=1e-12)
    expected = wang_isola_alignment(vectors[:25], vectors[25:])
    assert alignment(vectors[:25], vectors[25:]) == pytest.approx(expected, abs=1e-12)


def test_known_values():
    square = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    assert uniformity(square) == pytest.approx(math.log((4 * math.exp(-4) + 2 * math.exp(-8)) / 6))
    assert alignment([[1.0, 0.0]], [[-5.0, 0.0]]) == pytest.approx(4)


def test_collapsed_embeddings_have_the_worst_uniformity():
    assert uniformity(np.full((30, 5), 0.3)) == pytest.approx(0, abs=1e-12)
    assert uniformity(np.zeros((30, 5))) == pytest.approx(0, abs=1e-12)


def test_paper_protocol(vectors):
    names = [f"sentence {row}" for row in range(50)]
    table = dict(zip(names, vectors, strict=True))

    def encode(sentences):
        return np.array([table[sentence] for sentence in sentences])

    first, second = names[:25] + names[:5], names[25:] + names[45:]  # ten sentences come twice
    scores = np.tile([5.0, 4.0, 4.2, 1.0, 0.0], 6)
    result = paper_geometry(encode, make_task(scores, first, second))

    positive = [
        (one, two) for one, two, score in zip(first, second, scores, strict=True) if score > 4
    ]
    left, right = (np.array([table[name] for name in side]) for side in zip(*positive, strict=True))
    assert result.alignment == pytest.approx(wang_isola_alignment(left, right), abs=1e-12)
    assert result.uniformity == pytest.approx(wang_isola_uniformity(vectors), abs=1e-12)
    assert (result.positives, result.sentences, result.zero_vectors) == (12, 50, 0)


def test_refusals(vectors):
    task = make_task([1.0, 4.0], ["a", "b"], ["c", "d"])
    with pytest.raises(DataError, match=r"no pair is rated above 4\.0"):
        paper_geometry(lambda texts: np.eye(len(texts)), task)
    with pytest.raises(DataError, match="at least two"):
        uniformity(vectors[:1])
    with pytest.raises(DataError, match="needs pairs"):
        alignment(vectors[:0], vectors[:0])
    vectors[4, 4] = np.nan
    with pytest.raises(NumericError, match="first is row 4"):
        uniformity(vectors)

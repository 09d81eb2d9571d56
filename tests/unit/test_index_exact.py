"""Exact search by NumPy and by FAISS: both find what a full sort finds."""

import numpy as np
import pytest

from simcse.index import exact


@pytest.fixture(params=["numpy", "faiss"])
def engine(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(exact, "optional_faiss", lambda: None)
    else:
        pytest.importorskip("faiss")


@pytest.mark.parametrize("fraction", [None, 1.0, 0.5, 0.02, 0.0])
@pytest.mark.parametrize("count", [1, 5, 20])
def test_the_best_rows_of_several_arrays(engine, fraction, count):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(700, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.ascontiguousarray(vectors[random.choice(700, count)])
    allowed = None if fraction is None else random.random(700) < fraction
    blocks = [vectors[:3], vectors[3:300], vectors[300:]]
    scores, positions = exact.search_blocks(blocks, queries, 10, allowed=allowed)
    truth = queries @ vectors.T
    if allowed is not None:
        truth[:, ~allowed] = -np.inf
    for line, at, query in zip(scores, positions, truth, strict=True):
        best = [row for row in np.argsort(-query, kind="stable")[:10] if query[row] > -np.inf]
        assert at[at >= 0].tolist() == best
        np.testing.assert_allclose(line[at >= 0], query[best], atol=1e-6)

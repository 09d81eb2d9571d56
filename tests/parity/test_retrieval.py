"""Retrieval measures against plain loops and scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import (
    label_ranking_average_precision_score,
    ndcg_score,
    top_k_accuracy_score,
)

from simcse.errors import DataError, NumericError, UsageError
from simcse.evaluate import retrieval as module
from simcse.evaluate.retrieval import groups, retrieval


def plain_cosine(first, second):
    dot = sum(x * y for x, y in zip(first, second, strict=True))
    return dot / math.sqrt(sum(x * x for x in first) * sum(y * y for y in second))


def plain_ranking(query, documents, relevant):
    """Documents from best to worst; among equals the relevant ones come last."""
    cosines = [round(plain_cosine(query, document), 12) for document in documents]
    return sorted(range(len(documents)), key=lambda row: (-cosines[row], row in relevant))


def plain_mrr(queries, documents, relevant):
    total = 0.0
    for query, wanted in zip(queries, relevant, strict=True):
        ranking = plain_ranking(query, documents, wanted)
        total += 1 / min(ranking.index(row) + 1 for row in wanted)
    return total / len(queries)


def plain_recall(queries, documents, relevant, k):
    total = 0.0
    for query, wanted in zip(queries, relevant, strict=True):
        top = plain_ranking(query, documents, wanted)[:k]
        total += sum(row in top for row in wanted) / len(wanted)
    return total / len(queries)


def plain_ndcg(queries, documents, relevant, k):
    total = 0.0
    for query, wanted in zip(queries, relevant, strict=True):
        top = plain_ranking(query, documents, wanted)[:k]
        gain = sum(1 / math.log2(place + 2) for place, row in enumerate(top) if row in wanted)
        total += gain / sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
    return total / len(queries)


@pytest.fixture
def data():
    """Integer vectors: many exact ties, among relevant and other documents alike."""
    random = np.random.default_rng(7)
    queries, documents = random.integers(1, 4, (20, 3)), random.integers(1, 4, (60, 3))
    relevant = [set(random.choice(60, size).tolist()) for size in random.integers(1, 6, 20)]
    return queries, documents, relevant


@pytest.mark.parametrize("cells", [1, 150, 1 << 22])
@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_matches_plain_loops_whatever_the_chunk(monkeypatch, data, k, cells):
    monkeypatch.setattr(module, "CHUNK_CELLS", cells)
    queries, documents, relevant = data
    result = retrieval(queries, documents, relevant, k=k)
    plain = queries.tolist(), documents.tolist(), relevant
    assert result.mrr == pytest.approx(plain_mrr(*plain))
    assert result.recall == pytest.approx(plain_recall(*plain, k))
    assert result.ndcg == pytest.approx(plain_ndcg(*plain, k))
    assert (result.queries, result.documents, result.k) == (20, 60, k)
    for name in ("mrr", "recall", "ndcg"):
        low, high = result.intervals[name]
        assert low <= getattr(result, name) <= high


def test_matches_scikit_learn_with_one_relevant_document():
    random = np.random.default_rng(8)
    queries, documents = random.normal(size=(30, 4)), random.normal(size=(50, 4))
    relevant = random.integers(0, 50, 30)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, documents)]
    cosines = unit[0] @ unit[1].T
    result = retrieval(queries, documents, relevant.tolist(), k=5)
    # With one relevant document the average precision is its reciprocal rank.
    truth = np.eye(50, dtype=int)[relevant]
    assert result.mrr == pytest.approx(label_ranking_average_precision_score(truth, cosines))
    accuracy = top_k_accuracy_score(relevant, cosines, k=5, labels=np.arange(50))
    assert result.recall == pytest.approx(accuracy)
    assert result.ndcg == pytest.approx(ndcg_score(truth, cosines, k=5))


def test_a_query_that_is_a_document_is_not_its_own_answer():
    random = np.random.default_rng(9)
    vectors = random.normal(size=(30, 4))
    partners = [row ^ 1 for row in range(30)]
    result = retrieval(vectors, vectors, partners, k=3, own=range(30))
    ranks = []
    for row in range(30):
        others = [other for other in range(30) if other != row]
        moved = [others.index(partners[row])]
        ranks.append(retrieval(vectors[[row]], vectors[others], [moved], k=3).mrr)
    assert result.mrr == pytest.approx(np.mean(ranks))


def test_groups_follow_chains():
    found = groups([(3, 1), (4, 0), (1, 2)], count=6)
    assert found == [[0, 4], [1, 2, 3], [1, 2, 3], [1, 2, 3], [0, 4], [5]]


def test_collapsed_embeddings_rank_last():
    result = retrieval(np.ones((5, 3)), np.ones((20, 3)), [0, 1, 2, 3, 4], k=10)
    assert result.mrr == pytest.approx(1 / 20)
    assert result.recall == 0


def test_perfect_ranking_and_numpy_rows():
    result = retrieval(np.eye(4), np.eye(4), np.arange(4), k=1)
    assert (result.mrr, result.recall) == (1, 1)


@pytest.mark.parametrize("relevant", [[0], [0, -1], [0, 3], [[0], []]])
def test_relevant_rows_are_checked(relevant):
    with pytest.raises(DataError):
        retrieval(np.eye(3)[:2], np.eye(3), relevant)


def test_other_refusals():
    with pytest.raises(UsageError, match="k must be at least 1"):
        retrieval(np.eye(2), np.eye(2), [0, 1], k=0)
    with pytest.raises(DataError, match="shape"):
        retrieval(np.eye(2), np.eye(3), [0, 1])
    with pytest.raises(DataError, match="at least one query"):
        retrieval(np.ones((0, 3)), np.eye(3), [])
    with pytest.raises(NumericError):
        retrieval(np.full((2, 2), np.nan), np.eye(2), [0, 1])

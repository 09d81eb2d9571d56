"""STS scores against plain-Python ranks and correlations."""

import math
from pathlib import Path

import numpy as np
import pytest

from simcse.errors import DataError, NumericError
from simcse.evaluate.sts import (
    STS_TASKS,
    correlation,
    embed_task,
    evaluate_sts,
    score_sts,
    sts_average,
)
from simcse.evaluate.vectors import cosine, unit
from simcse.io.benchmarks import StsTask


def plain_cosine(first, second):
    dot = sum(x * y for x, y in zip(first, second, strict=True))
    return dot / math.sqrt(sum(x * x for x in first) * sum(y * y for y in second))


def plain_ranks(values):
    """Average ranks: 1 + how many are smaller + half of the others that tie."""
    return [
        1 + sum(other < value for other in values) + (values.count(value) - 1) / 2
        for value in values
    ]


def plain_pearson(left, right):
    means = sum(left) / len(left), sum(right) / len(right)
    left, right = [x - means[0] for x in left], [y - means[1] for y in right]
    return 100 * plain_cosine(left, right)


def plain_spearman(left, right):
    return plain_pearson(plain_ranks(left), plain_ranks(right))


def make_task(subsets, scores, first, second, name="sts12"):
    return StsTask(
        name=name,
        subsets=tuple(subsets),
        scores=np.array(scores, dtype=np.float64),
        first=tuple(first),
        second=tuple(second),
        path=Path("sts12.tsv"),
        sha256="0" * 64,
        notes=(),
    )


@pytest.fixture
def vectors():
    """Forty sentences and their vectors."""
    random = np.random.default_rng(3)
    return {f"sentence {row}": random.normal(size=8).astype(np.float32) for row in range(40)}


@pytest.fixture
def task(vectors):
    """Sixty pairs in subsets of 30, 20 and 10, with tied scores and repeated sentences."""
    random = np.random.default_rng(4)
    first, second = random.choice(list(vectors), 60), random.choice(list(vectors), 60)
    subsets = ["news"] * 30 + ["forum"] * 20 + ["images"] * 10
    return make_task(subsets, random.integers(0, 11, 60) / 2, first.tolist(), second.tolist())


def lookup(vectors):
    return lambda sentences: np.array([vectors[sentence] for sentence in sentences])


def plain_cosines(task, vectors):
    vectors = {sentence: vector.astype(float).tolist() for sentence, vector in vectors.items()}
    pairs = zip(task.first, task.second, strict=True)
    # An identical pair is 1 but for the last bits, and must tie with other identical pairs.
    return [round(plain_cosine(vectors[one], vectors[two]), 12) for one, two in pairs]


def test_every_number_matches_plain_python(task, vectors):
    result = evaluate_sts(lookup(vectors), task)
    cosines, scores = plain_cosines(task, vectors), task.scores.tolist()
    parts = {"news": slice(0, 30), "forum": slice(30, 50), "images": slice(50, 60)}

    for measure, plain in (("spearman", plain_spearman), ("pearson", plain_pearson)):
        by_subset = {name: plain(cosines[part], scores[part]) for name, part in parts.items()}
        found = {name: getattr(subset, measure) for name, subset in result.subsets.items()}
        assert found == pytest.approx(by_subset)
        news, forum, images = by_subset.values()
        expected = {
            "all": plain(cosines, scores),
            "mean": (news + forum + images) / 3,
            "wmean": (30 * news + 20 * forum + 10 * images) / 60,
        }
        found = {name: getattr(value, measure) for name, value in result.aggregations.items()}
        assert found == pytest.approx(expected)
    assert [subset.pairs for subset in result.subsets.values()] == [30, 20, 10]
    assert {value.pairs for value in result.aggregations.values()} == {60}
    assert result.spearman() == result.aggregations["all"].spearman


def test_distinct_sentences_are_encoded_once_in_one_call(task, vectors):
    calls = []

    def encode(sentences):
        calls.append(list(sentences))
        return lookup(vectors)(sentences)

    embedded = embed_task(encode, task)
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted({*task.first, *task.second})
    assert np.array_equal(embedded.vectors[embedded.first], lookup(vectors)(task.first))
    assert np.array_equal(embedded.vectors[embedded.second], lookup(vectors)(task.second))


def test_scale_and_precision_do_not_matter(task, vectors):
    expected = evaluate_sts(lookup(vectors), task)
    scaled = {name: 1000 * vector.astype(np.float64) for name, vector in vectors.items()}
    assert evaluate_sts(lookup(scaled), task) == expected


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_collapsed_embeddings_have_no_score(task, noise):
    random = np.random.default_rng(5)
    result = evaluate_sts(lambda texts: 1 + noise * random.normal(size=(len(texts), 8)), task)
    every = [*result.aggregations.values(), *result.subsets.values()]
    assert {(value.spearman, value.pearson) for value in every} == {(None, None)}


def test_one_undefined_subset_leaves_the_means_undefined(vectors):
    sentences = list(vectors)
    task = make_task(
        ["a", "a", "a", "b"], [1, 2, 4, 3], sentences[:4], sentences[4:8]
    )  # one pair alone has no correlation
    result = evaluate_sts(lookup(vectors), task)
    assert result.spearman("all") is not None
    assert result.subsets["b"].spearman is None
    assert result.spearman("mean") is result.spearman("wmean") is None


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(task, vectors, value):
    broken = {**vectors, task.first[0]: np.full(8, value)}
    with pytest.raises(NumericError, match="not finite"):
        evaluate_sts(lookup(broken), task)


def test_a_zero_vector_has_cosine_zero_and_is_counted(task, vectors):
    broken = {**vectors, task.first[0]: np.zeros(8)}
    assert evaluate_sts(lookup(vectors), task).zero_vectors == 0
    assert evaluate_sts(lookup(broken), task).zero_vectors == 1
    assert cosine([[0.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [3.0, 4.0]]).tolist() == [0.0, 0.6]


@pytest.mark.parametrize("shape", [(2, 8), (8,), (40, 8, 1)])
def test_encode_must_return_a_row_a_sentence(task, shape):
    with pytest.raises(DataError, match="encode must return shape"):
        evaluate_sts(lambda texts: np.ones(shape), task)


def test_rows_of_pairs_must_match():
    with pytest.raises(DataError, match="pairs of embeddings"):
        cosine(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(DataError, match=r"shape \(N, D\)"):
        unit(np.ones(3))


def test_correlation_ties_and_undefined_cases():
    cosines, scores = [0.1, 0.5, 0.5, 0.9, 0.2], [1.0, 1.0, 4.0, 5.0, 2.5]
    assert correlation(cosines, scores).spearman == pytest.approx(plain_spearman(cosines, scores))
    assert correlation([0.1, 0.2], [3.0, 3.0]).spearman is None
    assert correlation([0.1], [3.0]).spearman is None
    assert correlation([0.1, np.nan], [3.0, 4.0]).pearson is None


def test_average_needs_all_seven_tasks(task, vectors):
    result = evaluate_sts(lookup(vectors), task)
    results = dict.fromkeys((*STS_TASKS, "stsb-dev"), result)
    assert sts_average(results) == pytest.approx(result.spearman())
    assert sts_average(results, aggregation="wmean") == pytest.approx(result.spearman("wmean"))
    assert sts_average({**results, "sts14": score_sts(embed_task(collapsed, task))}) is None
    del results["sickr"]
    assert sts_average(results) is None


def collapsed(sentences):
    return np.ones((len(sentences), 8), dtype=np.float32)

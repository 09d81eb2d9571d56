"""Retrieval of held-out bodies, its interval, and the words for it."""

import math

import numpy as np
import pytest

from simcse.evaluate.significance import PairedDifference, compare_means
from simcse.quickstart.prose import Pair, Sentence
from simcse.quickstart.report import verdict
from simcse.quickstart.run import evaluate_pairs, find_sentences

PAIRS = [Pair(f"name{i}", f"summary {i}", f"body {i}") for i in range(30)]


def encoder(noise, seed=0):
    """An `Encode` that puts summary i and body i near each other, the nearer the less noise."""
    centers = np.random.default_rng(seed).normal(size=(len(PAIRS), 8))

    def encode(texts):
        rows = []
        for text in texts:
            kind, number = text.split()
            drawn = np.random.default_rng([len(kind), int(number)]).normal(size=8)
            rows.append(centers[int(number)] + noise * drawn)
        return np.array(rows, np.float32)

    return encode


def plain_cosine(first, second):
    dot = sum(float(x) * float(y) for x, y in zip(first, second, strict=True))
    lengths = [math.sqrt(sum(float(x) ** 2 for x in vector)) for vector in (first, second)]
    return dot / (lengths[0] * lengths[1])


@pytest.mark.parametrize("noise", [0.0, 0.5, 2.0])
def test_measures_agree_with_plain_loops(noise):
    encode = encoder(noise)
    found = evaluate_pairs(encode, PAIRS)
    summaries = encode([pair.summary for pair in PAIRS])
    bodies = encode([pair.body for pair in PAIRS])
    reciprocal, among_ten = [], 0
    for i, summary in enumerate(summaries):
        cosines = [plain_cosine(summary, body) for body in bodies]
        rank = 1 + sum(cosine > cosines[i] for cosine in cosines)
        reciprocal.append(1 / rank)
        among_ten += rank <= 10
    own = [plain_cosine(s, b) for s, b in zip(summaries, bodies, strict=True)]
    assert found.reciprocal_ranks == pytest.approx(reciprocal)
    assert found.mrr == pytest.approx(sum(reciprocal) / len(PAIRS))
    assert found.recall == pytest.approx(among_ten / len(PAIRS))
    assert found.positive_cosines == pytest.approx(own)
    assert found.alignment == pytest.approx(sum(2 - 2 * cosine for cosine in own) / len(PAIRS))
    assert found.random_cosines[0] == pytest.approx(plain_cosine(summaries[0], bodies[-1]))
    assert found.scores.keys() == {"mrr", "recall", "alignment", "uniformity"}


def test_a_collapsed_model_finds_nothing():
    found = evaluate_pairs(lambda texts: np.ones((len(texts), 4), np.float32), PAIRS)
    assert found.mrr == pytest.approx(1 / len(PAIRS))
    assert (found.recall, found.alignment) == (0, pytest.approx(0))


def test_the_interval_covers_the_mean_is_seeded_and_is_of_the_same_queries():
    before, after = evaluate_pairs(encoder(2.0), PAIRS), evaluate_pairs(encoder(0.5), PAIRS)

    def mrr_change(before, after):
        return compare_means(before.reciprocal_ranks, after.reciprocal_ranks, seed=1)[0]

    change = mrr_change(before, after)
    assert change.difference == pytest.approx(100 * (after.mrr - before.mrr))
    assert change.low < change.difference < change.high
    assert change == mrr_change(before, after)
    error = np.std(after.reciprocal_ranks - before.reciprocal_ranks) / math.sqrt(len(PAIRS))
    assert change.high - change.low == pytest.approx(100 * 2 * 1.96 * error, rel=0.1)
    same = mrr_change(before, before)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((0.03, 0.01, 0.05), "better, MRR +0.030 (95 % interval +0.010 to +0.050)."),
        ((-0.03, -0.05, -0.01), "worse, MRR -0.030 (95 % interval -0.050 to -0.010)."),
        (
            (0.01, -0.01, 0.03),
            "no clear difference, MRR +0.010 (95 % interval -0.010 to +0.030).",
        ),
        (
            (-0.01, -0.02, -0.0001),  # as printed, the interval reaches 0
            "no clear difference, MRR -0.010 (95 % interval -0.020 to +0.000).",
        ),
        ((0, 0, 0), "no clear difference, MRR +0.000 (95 % interval +0.000 to +0.000)."),
    ],
)
def test_the_verdict_says_what_the_interval_allows(change, words):
    mean, low, high = (100 * each for each in change)
    assert verdict(PairedDifference(50, 50 + mean, low, high, 0.5)) == words


def test_search_gives_the_nearest_sentences_best_first():
    encode = encoder(0.5)
    sentences = [Sentence(pair.body, pair.name) for pair in PAIRS]
    vectors = encode([sentence.text for sentence in sentences])
    question = encode(["summary 7"])[0]
    expected = sorted(((plain_cosine(question, v), i) for i, v in enumerate(vectors)), reverse=True)
    hits = find_sentences(encode, vectors, sentences, "summary 7", count=3)
    assert [sentence for sentence, _ in hits] == [sentences[i] for _, i in expected[:3]]
    assert [cosine for _, cosine in hits] == pytest.approx([cosine for cosine, _ in expected[:3]])
    assert str(hits[0][0]) == "body 7 [name7]"

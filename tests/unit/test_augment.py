"""Augmentations: what is kept, how often, and that a seed decides it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simcse.data.augment import augmentation, crop, delete_one, delete_words
from simcse.errors import ConfigError

SENTENCES = st.lists(st.text("ab ,\t\u00a0", max_size=40), max_size=8)
RATES = st.floats(0, 0.99)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def is_part(part: list[str], whole: list[str]) -> bool:
    """Whether words stand in the same order in ``whole``."""
    rest = iter(whole)
    return all(word in rest for word in part)


@given(SENTENCES, RATES, st.integers(0, 2**32))
def test_spans_are_contiguous_and_no_sentence_is_lost(
    sentences: list[str], rate: float, seed: int
) -> None:
    cropped = crop(sentences, rate, draw(seed))
    assert len(cropped) == len(sentences)
    for before, after in zip(sentences, cropped, strict=True):
        words, span = before.split(), after.split()
        assert any(words[i : i + len(span)] == span for i in range(len(words) + 1))
        assert bool(span) is bool(words)
        assert abs(len(span) - len(words) * (1 - rate)) < 1 or len(span) == 1


@given(SENTENCES, RATES, st.integers(0, 2**32))
def test_deletion_keeps_the_order_and_a_word(sentences: list[str], rate: float, seed: int) -> None:
    for before, after in zip(sentences, delete_words(sentences, rate, draw(seed)), strict=True):
        words, left = before.split(), after.split()
        assert is_part(left, words)
        assert bool(left) is bool(words)
        assert abs(len(left) - len(words) * (1 - rate)) < 1 or len(left) == 1


@given(SENTENCES, st.integers(0, 2**32))
def test_one_word_is_deleted(sentences: list[str], seed: int) -> None:
    for before, after in zip(sentences, delete_one(sentences, draw(seed)), strict=True):
        words, left = before.split(), after.split()
        assert is_part(left, words)
        assert len(left) == (len(words) - 1 if len(words) > 1 else len(words))


@pytest.mark.parametrize("augment", [crop, delete_words])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.3])
def test_the_rate_is_met_in_expectation(augment, rate: float) -> None:
    """7 words are no multiple of anything: 5 standard errors of the rounding."""
    count = 20_000
    kept = [len(text.split()) for text in augment(["a b c d e f g"] * count, rate, draw())]
    assert abs(np.mean(kept) - 7 * (1 - rate)) < 5 * 0.5 / count**0.5
    assert len(set(kept)) == 2


@pytest.mark.parametrize(
    ("augment", "share"),
    [
        (lambda texts: crop(texts, 0.5, draw()), [1 / 3, 2 / 3, 2 / 3, 1 / 3]),
        (lambda texts: delete_words(texts, 0.5, draw()), [0.5] * 4),
        (lambda texts: delete_one(texts, draw()), [0.75] * 4),
    ],
)
def test_every_word_is_as_likely_as_its_place_says(augment, share: list[float]) -> None:
    count = 20_000
    counts = Counter(word for text in augment(["a b c d"] * count) for word in text.split())
    for word, expected in zip("abcd", share, strict=True):
        assert abs(counts[word] / count - expected) < 5 * 0.5 / count**0.5


def test_a_seed_gives_the_same_again_and_another_something_else() -> None:
    texts = ["a b c d e f g h i j"] * 50
    for name, rate in (("crop", 0.3), ("delete", 0.3), ("delete-one", None)):
        augment = augmentation(name, rate)
        assert augment(texts, draw(1)) == augment(texts, draw(1)) != augment(texts, draw(2))
        assert augment([], draw()) == []


@pytest.mark.parametrize(
    ("name", "rate", "message"),
    [
        ("swap", 0.1, "unknown augmentation 'swap'; expected one of crop, delete, delete-one"),
        ("crop", None, "crop needs a rate"),
        ("crop", 1.0, "from 0 to below 1, found 1.0"),
        ("delete", -0.1, "from 0 to below 1"),
        ("delete", float("nan"), "from 0 to below 1"),
        ("delete-one", 0.1, "takes no rate"),
    ],
)
def test_what_is_no_augmentation_is_refused(name: str, rate: float | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        augmentation(name, rate)

"""Augmentations that delete words, and ESimCSE's that repeats tokens."""

import random as python_random
from collections.abc import Collection, Sequence

import numpy as np

from simcse.data.augment.draws import Counts, check_rate, lengths_of, rounded, shuffled_positions


def crop(sentences: Sequence[str], rate: float, random: np.random.Generator) -> list[str]:
    """Keep a contiguous span of ``1 - rate`` of each sentence's words, from a random start.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    lengths = lengths_of(words)
    kept = _remaining(lengths, rate, random)
    starts = random.integers(0, lengths - kept, endpoint=True)
    spans = zip(words, starts.tolist(), kept.tolist(), strict=True)
    return [" ".join(each[start : start + count]) for each, start, count in spans]


def delete_words(sentences: Sequence[str], rate: float, random: np.random.Generator) -> list[str]:
    """Delete ``rate`` of each sentence's words, drawn at random.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    return _select(words, _remaining(lengths_of(words), rate, random), random)


def delete_one(sentences: Sequence[str], random: np.random.Generator) -> list[str]:
    """Delete one word of each sentence, drawn at random; a single word stays."""
    words = [sentence.split() for sentence in sentences]
    lengths = lengths_of(words)
    return _select(words, np.maximum(lengths - 1, np.minimum(lengths, 1)), random)


def repeat_tokens(
    ids: Sequence[int], rate: float, *, keep: Collection[int], seed: int
) -> list[int]:
    """Repeat some tokens where they stand, so that length no longer tells positives from others.

    Of n tokens a number drawn from 0 to max(2, int(rate * n)) is repeated, each once: Wu et al.
    2022, ESimCSE, on sub-words.

    Args:
        ids: token ids, special tokens included.
        rate: the largest share.
        keep: ids that are never repeated: the special tokens.
        seed: decides how many and which.

    Example:
        >>> repeat_tokens([0, 7, 8, 9, 1], 0.4, keep=(0, 1), seed=5)
        [0, 7, 8, 8, 9, 9, 1]
    """
    generator = python_random.Random(seed)
    places = [place for place, token in enumerate(ids) if token not in keep]
    count = generator.randint(0, max(2, int(rate * len(places))))
    chosen = set(generator.sample(places, min(count, len(places))))
    return [token for place, token in enumerate(ids) for _ in range(1 + (place in chosen))]


def _select(words: Sequence[list[str]], kept: Counts, random: np.random.Generator) -> list[str]:
    """Select ``kept`` words of each sentence at random, in their order."""
    drawn = zip(words, shuffled_positions(words, random), kept.tolist(), strict=True)
    return [
        " ".join(each[i] for i in sorted(positions[:count])) for each, positions, count in drawn
    ]


def _remaining(lengths: Counts, rate: float, random: np.random.Generator) -> Counts:
    """Draw the number of words that each sentence keeps, at least one."""
    check_rate(rate)
    kept = rounded(lengths * (1 - rate), random)
    return np.clip(kept, np.minimum(lengths, 1), lengths)

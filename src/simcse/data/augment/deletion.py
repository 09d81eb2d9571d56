"""Augmentations that delete words."""

from collections.abc import Sequence

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

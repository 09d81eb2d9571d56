"""Random numbers and positions of words, drawn for a whole list of sentences at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.errors import ConfigError

Counts = NDArray[np.int64]


def check_rate(rate: float) -> None:
    """Check that a rate is a share of words.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    if not 0 <= rate < 1:
        raise ConfigError(f"the rate must be from 0 to below 1, found {rate}")


def lengths_of(words: Sequence[Sequence[str]]) -> Counts:
    """(N,) number of words of each sentence."""
    return np.array([len(each) for each in words], np.int64)


def rounded(exact: NDArray[np.floating[Any]], random: np.random.Generator) -> Counts:
    """Round (N,) up or down at random, so that the expected value stays."""
    return np.floor(exact + random.random(len(exact))).astype(np.int64)


def shuffled_positions(
    words: Sequence[Sequence[str]], random: np.random.Generator
) -> list[list[int]]:
    """Return the positions of each sentence's words in a random order."""
    lengths = lengths_of(words)
    ends = np.cumsum(lengths)
    sentence = np.repeat(np.arange(len(words)), lengths)  # (W,) of all words
    shuffled = np.lexsort((random.random(len(sentence)), sentence))  # within each sentence
    positions: list[int] = (shuffled - (ends - lengths)[sentence]).tolist()
    bounds = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return [positions[start:end] for start, end in bounds]

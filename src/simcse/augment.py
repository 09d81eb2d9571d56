"""The paper's discrete augmentations (its table 1): crop, word deletion, delete one word.

These work on words as whitespace parts them, as the paper's do, and on a whole list of sentences
at once. A share of the words is met exactly in expectation: what a sentence keeps is rounded up
or down at random. No sentence becomes empty. `repeat_tokens` is ESimCSE's, on token ids.
"""

import random as python_random
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from simcse.errors import ConfigError

Counts = NDArray[np.int64]
Augment = Callable[[Sequence[str], np.random.Generator], list[str]]


def crop(sentences: Sequence[str], rate: float, random: np.random.Generator) -> list[str]:
    """Keep a contiguous span of ``1 - rate`` of each sentence's words, from a random start.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    lengths = _lengths(words)
    kept = _kept(lengths, rate, random)
    starts = random.integers(0, lengths - kept, endpoint=True)
    spans = zip(words, starts.tolist(), kept.tolist(), strict=True)
    return [" ".join(each[start : start + count]) for each, start, count in spans]


def delete_words(sentences: Sequence[str], rate: float, random: np.random.Generator) -> list[str]:
    """Delete ``rate`` of each sentence's words, drawn at random.

    Raises:
        ConfigError: ``rate`` is not from 0 to below 1.
    """
    words = [sentence.split() for sentence in sentences]
    return _keep_some(words, _kept(_lengths(words), rate, random), random)


def delete_one(sentences: Sequence[str], random: np.random.Generator) -> list[str]:
    """Delete one word of each sentence, drawn at random; a single word stays."""
    words = [sentence.split() for sentence in sentences]
    lengths = _lengths(words)
    return _keep_some(words, np.maximum(lengths - 1, np.minimum(lengths, 1)), random)


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


def augmentation(name: str, rate: float | None) -> Augment:
    """Return an augmentation by its name: ``crop``, ``delete`` (with a rate) or ``delete-one``.

    Raises:
        ConfigError: there is none of that name, or the rate is missing, useless or no rate.
    """
    if name == "delete-one":
        if rate is not None:
            raise ConfigError("delete-one takes no rate: it deletes one word")
        return delete_one
    if name not in BY_RATE:
        known = ", ".join((*BY_RATE, "delete-one"))
        raise ConfigError(f"no augmentation {name!r}; there are {known}")
    if rate is None:
        raise ConfigError(f"{name} needs a rate, such as 0.1")
    _check(rate)
    function, share = BY_RATE[name], rate
    return lambda sentences, random: function(sentences, share, random)


BY_RATE = {"crop": crop, "delete": delete_words}


def _keep_some(words: Sequence[list[str]], kept: Counts, random: np.random.Generator) -> list[str]:
    """Keep ``kept`` words of each sentence, drawn at random, in their order."""
    lengths = _lengths(words)
    sentence = np.repeat(np.arange(len(words)), lengths)  # (W,) of all words
    shuffled = np.lexsort((random.random(len(sentence)), sentence))  # within each sentence
    rank = np.empty(len(sentence), np.int64)
    first = np.cumsum(lengths) - lengths
    rank[shuffled] = np.arange(len(sentence)) - first[sentence]
    keep = (rank < kept[sentence]).tolist()
    given = iter(keep)
    return [" ".join(word for word in each if next(given)) for each in words]


def _kept(lengths: Counts, rate: float, random: np.random.Generator) -> Counts:
    """Draw how many words each sentence keeps: at least one of those it has."""
    _check(rate)
    exact = lengths * (1 - rate)
    kept = np.floor(exact + random.random(len(lengths))).astype(np.int64)
    return np.clip(kept, np.minimum(lengths, 1), lengths)


def _check(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ConfigError(f"the rate must be from 0 to below 1, got {rate}")


def _lengths(words: Sequence[list[str]]) -> Counts:
    return np.array([len(each) for each in words], np.int64)

"""Rows of a training file that occur again: word for word, or nearly."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from simcse.data.word_hashes import PAIRS, Keys, WordHashes, jaccard, split_words
from simcse.io.records import Example

NEAR = 0.8  # share of words in common that makes a near duplicate
CHUNK = 20_000  # rows analyzed together
Mask = NDArray[np.bool_]
T = TypeVar("T")


def chunks(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield items in lists of ``size``."""
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def row_text(row: Example) -> str:
    """Join all texts of a row."""
    return " ".join(row.texts)


def repeats(keys: Keys) -> Mask:
    """(N,) bool: rows with the key of an earlier row; rows without words (key 0) never are."""
    again = np.ones(len(keys), bool)
    again[np.unique(keys, return_index=True)[1]] = False
    again &= keys != 0
    return again


def near_repeats(keys: Keys, bands: Keys, rows: Callable[[], Iterable[Example]]) -> Mask:
    """(N,) bool: rows that share `NEAR` of their words with an earlier one, repeats left out.

    MinHash finds 96 % of the pairs at 80 %, 99.9 % at 90 %.

    Args:
        keys: (N,) of the rows.
        bands: (N, B) of the rows.
        rows: reads the rows once more, to compare the candidates word by word.
    """
    pairs = _candidates(bands, ~repeats(keys) & (keys != 0))
    near = np.zeros(len(keys), bool)
    if not len(pairs):
        return near
    wanted, positions = np.unique(pairs, return_inverse=True)
    words, positions = _words_of(rows(), wanted), positions.reshape(pairs.shape)
    blocks = [positions[i : i + PAIRS] for i in range(0, len(pairs), PAIRS)]
    similar = np.concatenate([jaccard(words, block) >= NEAR for block in blocks])
    for first, second in pairs[similar].tolist():  # in the order of the second
        near[second] |= not near[first]
    return near


def _candidates(bands: Keys, unique: Mask) -> NDArray[np.int64]:
    """(P, 2) rows that agree in a band, each with its neighbor and the first there; by second."""
    found = [np.empty((0, 2), np.int64)]
    numbers = np.flatnonzero(unique)
    for band in bands[unique].T:
        order = np.argsort(band, kind="stable")
        key = band[order]
        is_first = np.concatenate([[True], key[1:] != key[:-1]])
        first = np.flatnonzero(is_first)[np.cumsum(is_first) - 1]  # of each row's group
        others = np.flatnonzero(~is_first)
        for partner in (others - 1, first[others]):
            found.append(np.stack([numbers[order[partner]], numbers[order[others]]], axis=1))
    return np.ascontiguousarray(np.unique(np.concatenate(found)[:, ::-1], axis=0)[:, ::-1])


def _words_of(rows: Iterable[Example], wanted: NDArray[np.int64]) -> WordHashes:
    """Split the texts of the rows with the numbers ``wanted``, ascending."""
    found, done = [], 0
    for chunk in chunks(rows):
        here = wanted[(wanted >= done) & (wanted < done + len(chunk))] - done
        found.append(split_words([row_text(chunk[i]) for i in here]))
        done += len(chunk)
    return WordHashes(
        np.concatenate([words.hashes for words in found]),
        np.concatenate([words.counts for words in found]),
    )

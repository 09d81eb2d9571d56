"""Neighboring sentences as positives, from a corpus that is in document order."""

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcse.data.duplicates import chunks
from simcse.data.word_hashes import jaccard, split_words
from simcse.errors import DataError
from simcse.io.columns import Columns
from simcse.io.files import Source
from simcse.io.records import Note, stream_texts

Numbered = tuple[int, str]  # line, sentence
MARGIN = 1.2  # neighbors share at least 1.2 times as many words as random pairs
STANDARD_ERRORS = 4.0  # and the difference is at least that many times its standard error
SORTED = 0.9  # share of neighbors in alphabetical order that no document reaches
MIN_PAIRS = 1000  # pairs from which a later chunk is checked by itself


@dataclass
class DocumentOrder:
    """Evidence that a corpus is in document order: words that two sentences share."""

    pairs: int = 0  # number of neighbors compared, and of random pairs
    neighbors: float = 0.0  # sum of the neighbors' Jaccard similarities
    random_pairs: float = 0.0  # sum of the random pairs' Jaccard similarities

    def __str__(self) -> str:
        near, far = (100 * s / max(1, self.pairs) for s in (self.neighbors, self.random_pairs))
        return f"neighbors share {near:.1f} % of their words, random pairs {far:.1f} %"


def neighbor_pairs(
    source: Source,
    *,
    columns: Columns = "",
    distance: int = 1,
    seed: int = 0,
    order: DocumentOrder | None = None,
    note: Note | None = None,
) -> Iterator[tuple[str, str]]:
    """Pair each sentence with one of the next ``distance`` of its document, in constant memory.

    The objectives "next sentence" and "next 3 sentences" of Gao et al. 2021, table 2. A blank
    line ends a document; without any the whole corpus counts as one. The last sentence of a
    document is no anchor, and no sentence is its own positive.

    Args:
        source: the corpus, read once by `simcse.io.records.stream_texts`.
        columns: column of the text.
        distance: the positive is drawn from this many sentences that follow.
        seed: random seed.
        order: receives the evidence.
        note: called with a line about the columns.

    Raises:
        DataError: while streaming: the corpus cannot be read or has no sentences; or neighbors
            are not more similar than random pairs, or are sorted, so that this is not their
            order in documents.
    """
    generator = random.Random(seed)
    window: deque[Numbered] = deque()
    sentences = stream_texts(source, columns, note=note)
    for sentence in _check_order(source, sentences, order or DocumentOrder()):
        if window and sentence[0] != window[-1][0] + 1:
            yield from _pairs(window, 1, generator)
            window.clear()
        window.append(sentence)
        yield from _pairs(window, distance, generator)
    yield from _pairs(window, 1, generator)


def _pairs(
    window: deque[Numbered], distance: int, generator: random.Random
) -> Iterator[tuple[str, str]]:
    """Remove the first sentences while ``distance`` follow, and pair each with one of those."""
    while len(window) > distance:
        _, anchor = window.popleft()
        following = [text for _, text in window if text != anchor]
        if following:
            yield anchor, generator.choice(following)


def _check_order(
    source: Source, sentences: Iterator[Numbered], order: DocumentOrder
) -> Iterator[Numbered]:
    """Pass sentences on, chunk by chunk, each after a check of its document order."""
    number = -1
    for number, chunk in enumerate(chunks(sentences)):
        lines = np.array([line for line, _ in chunk], np.int64)
        words = split_words([text for _, text in chunk])
        keys = words.keys()
        first = np.flatnonzero((np.diff(lines) == 1) & (keys[1:] != keys[:-1]))
        other = np.random.default_rng(0).permutation(first + 1)
        near = jaccard(words, np.stack([first, first + 1], axis=1))  # (P,)
        far = jaccard(words, np.stack([first, other], axis=1))  # (P,)
        if number == 0 or len(first) >= MIN_PAIRS:  # the last chunk may be small
            where = f"{source}: lines {lines[0]:,} to {lines[-1]:,}"
            _reject_sorted(where, [chunk[i : i + 2] for i in first.tolist()])
            _reject_shuffled(where, near, far)
        order.pairs += len(first)
        order.neighbors += float(near.sum())
        order.random_pairs += float(far.sum())
        yield from chunk
    if number < 0:
        raise DataError(f"{source}: no usable rows ({source.counts})")


def _reject_sorted(where: str, pairs: Sequence[Sequence[Numbered]]) -> None:
    ascending = sum(first <= second for (_, first), (_, second) in pairs)
    if len(pairs) >= MIN_PAIRS and ascending > SORTED * len(pairs):
        raise DataError(f"{where} are sorted, so they are not in document order")


def _reject_shuffled(where: str, near: NDArray[np.float64], far: NDArray[np.float64]) -> None:
    more, pairs = near - far, len(near)
    if pairs > 1 and near.mean() >= MARGIN * far.mean():
        if more.mean() > STANDARD_ERRORS * more.std(ddof=1) / math.sqrt(pairs):
            return
    found = DocumentOrder(pairs, float(near.sum()), float(far.sum()))
    raise DataError(
        f"{where} are not in document order, or too few to decide: {found} ({pairs:,} pairs); "
        f"expected {MARGIN} times as many for neighbors, a difference of {STANDARD_ERRORS:.0f} "
        "standard errors. A shuffled corpus has no next sentences"
    )

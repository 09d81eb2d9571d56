"""Neighboring sentences as positives, from a corpus that is in document order."""

import math
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcse.data.duplicates import chunks
from simcse.data.words import likeness, split_words
from simcse.errors import DataError
from simcse.io.files import Source
from simcse.io.sentences import stream_numbered

Numbered = tuple[int, str]  # line, sentence
Shares = NDArray[np.float64]
MARGIN = 1.2  # neighbors share so many times the words that random pairs share
DEVIATIONS = 4.0  # and the difference is so many times its standard error
SORTED = 0.9  # of the neighbors in the order of the alphabet: documents are not
JUDGED = 1000  # pairs of a later chunk from which on it is judged by itself


@dataclass
class Order:
    """What was measured of a corpus: the words that two sentences share, summed over pairs.

    Attributes:
        pairs: neighbors compared, and as many random pairs.
        neighbors: sum of the neighbors' shares of words in common (Jaccard).
        strangers: that of the random pairs.
    """

    pairs: int = 0
    neighbors: float = 0.0
    strangers: float = 0.0

    def __str__(self) -> str:
        near, far = (100 * total / max(1, self.pairs) for total in (self.neighbors, self.strangers))
        return f"neighbors share {near:.1f} % of their words, random pairs {far:.1f} %"

    def add(self, other: "Order") -> None:
        """Take in what was measured of other pairs."""
        self.pairs += other.pairs
        self.neighbors += other.neighbors
        self.strangers += other.strangers


def neighbor_pairs(
    source: Source,
    *,
    column: str = "text",
    ahead: int = 1,
    seed: int = 0,
    order: Order | None = None,
) -> Iterator[tuple[str, str]]:
    """Pair each sentence with one of the next ``ahead`` of its document, in constant memory.

    The objectives "next sentence" and "next 3 sentences" of Gao et al. 2021, table 2. A blank
    line ends a document; without any the whole corpus counts as one. The last sentence of a
    document is nobody's anchor, and no sentence is its own positive.

    Args:
        source: the corpus, read once, as `simcse.io.sentences.stream_numbered` reads it.
        column: field of ``.jsonl`` and ``.parquet``.
        ahead: draw the positive from so many sentences that follow.
        seed: of the draw.
        order: is told what was measured.

    Raises:
        DataError: while streaming: the corpus cannot be read or has no sentences; or those that
            follow each other are not more alike than random ones, or are sorted, so that this is
            not their order in documents.
    """
    draw = random.Random(seed)
    window: deque[Numbered] = deque()
    for sentence in _in_document_order(source, column, Order() if order is None else order):
        if window and sentence[0] != window[-1][0] + 1:
            yield from _pairs(window, 1, draw)
            window.clear()
        window.append(sentence)
        yield from _pairs(window, ahead, draw)
    yield from _pairs(window, 1, draw)


def _pairs(window: deque[Numbered], ahead: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Take the first sentences out of the window while ``ahead`` follow, each with one of these."""
    while len(window) > ahead:
        _, anchor = window.popleft()
        following = [text for _, text in window if text != anchor]
        if following:
            yield anchor, draw.choice(following)


def _in_document_order(source: Source, column: str, order: Order) -> Iterator[Numbered]:
    """Pass sentences on, chunk by chunk, each after it was seen to be in document order."""
    number = -1
    for number, chunk in enumerate(chunks(stream_numbered(source, column))):
        lines = np.array([line for line, _ in chunk], np.int64)
        words = split_words([text for _, text in chunk])
        keys = words.keys()
        first = np.flatnonzero((np.diff(lines) == 1) & (keys[1:] != keys[:-1]))
        second = np.random.default_rng(0).permutation(first + 1)
        near = likeness(words, np.stack([first, first + 1], axis=1))  # (P,)
        far = likeness(words, np.stack([first, second], axis=1))  # (P,)
        found = Order(len(first), float(near.sum()), float(far.sum()))
        if number == 0 or found.pairs >= JUDGED:  # the rest behind the last whole chunk may be few
            where = f"{source}: lines {lines[0]:,} to {lines[-1]:,}"
            _refuse_sorted(where, [chunk[i : i + 2] for i in first.tolist()])
            _refuse_shuffled(where, near, far, found)
        order.add(found)
        yield from chunk
    if number < 0:
        raise DataError(f"{source}: no usable rows ({source.counts})")


def _refuse_sorted(where: str, pairs: Sequence[Sequence[Numbered]]) -> None:
    ascending = sum(first <= second for (_, first), (_, second) in pairs)
    if len(pairs) >= JUDGED and ascending > SORTED * len(pairs):
        raise DataError(f"{where} are sorted, so they are not in document order")


def _refuse_shuffled(where: str, near: Shares, far: Shares, found: Order) -> None:
    if not _clearly_more(near, far):
        raise DataError(
            f"{where} are not in document order, or too few to tell: {found} ({found.pairs:,} "
            f"pairs); {MARGIN} times as many are expected, and {DEVIATIONS:.0f} standard errors. "
            "A shuffled corpus has no next sentences"
        )


def _clearly_more(near: Shares, far: Shares) -> bool:
    if len(near) < 2 or near.mean() < MARGIN * far.mean():
        return False
    more = near - far
    return bool(more.mean() > DEVIATIONS * more.std(ddof=1) / math.sqrt(len(more)))

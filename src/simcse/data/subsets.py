"""Mending training data: which rows to keep, in one pass over their words."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcse.data.duplicates import chunks, near_repeats, repeats, row_text
from simcse.data.words import Keys, among, split_words
from simcse.errors import DataError
from simcse.io.records import Example

Rows = Callable[[], Iterable[Example]]  # reads the rows, each time anew
Lines = NDArray[np.int64]


@dataclass(frozen=True)
class Deduped:
    """Lines of the rows to keep, and how many are left out for which reason."""

    keep: Lines
    dropped: dict[str, int]


def dedupe(rows: Rows, *, near: bool = False, leaks: Iterable[str] = ()) -> Deduped:
    """Keep the first of rows with the same words, case and punctuation aside.

    Args:
        rows: reads the rows.
        near: drop rows that share 80 % of their words with one that is kept, too.
        leaks: drop rows in which one of these sentences stands.
    """
    known = np.unique(split_words(list(leaks)).keys())
    lines, keys, bands, leaked = [], [], [], []
    for chunk in chunks(rows()):
        words = split_words([row_text(row) for row in chunk])
        lines.append(np.array([row.line for row in chunk], np.int64))
        keys.append(words.keys())
        bands.append(words.bands() if near else np.zeros((len(chunk), 0), np.uint64))
        leaked.append(_leaks(chunk, known))
    key, leak = np.concatenate(keys), np.concatenate(leaked)
    reasons = {"without words": key == 0, "evaluation sentences": leak, "duplicates": repeats(key)}
    if near:
        reasons["near duplicates"] = near_repeats(key, np.concatenate(bands), rows)
    dropped, gone = {}, np.zeros(len(key), bool)
    for name, mask in reasons.items():
        dropped[name] = int((mask & ~gone).sum())
        gone |= mask
    return Deduped(np.concatenate(lines)[~gone], dropped)


def split(rows: Rows, shares: dict[str, float], *, seed: int) -> dict[str, Lines]:
    """Deal rows out to parts at random, rows with the same words or the same anchor to one part.

    Args:
        rows: reads the rows.
        shares: by part, its share of the rows; they sum to 1.
        seed: of the draw, which depends on nothing else but the rows' words.

    Raises:
        DataError: a part would be empty.
    """
    lines, keys = _lines_and_keys(rows, lambda row: row.anchor)
    groups, owner = np.unique(keys, return_inverse=True)
    sizes = np.bincount(owner)
    order = np.random.default_rng(seed).permutation(len(groups))
    ends = np.cumsum(list(shares.values())) * len(lines)
    middle = np.cumsum(sizes[order]) - sizes[order] / 2
    part = np.empty(len(groups), np.int64)
    part[order] = np.minimum(np.searchsorted(ends, middle), len(shares) - 1)
    parts = {name: lines[part[owner] == number] for number, name in enumerate(shares)}
    for name, found in parts.items():
        if not len(found):
            raise DataError(f"part {name!r} would be empty: {len(groups):,} different anchors")
    return parts


def sample(rows: Rows, count: int, *, seed: int) -> Lines:
    """Choose ``count`` rows at random, in the file's order.

    Raises:
        DataError: there are fewer.
    """
    lines = np.array([row.line for row in rows()], np.int64)
    if count > len(lines):
        raise DataError(f"expected at least {count:,} rows, got {len(lines):,}")
    chosen = np.random.default_rng(seed).choice(len(lines), count, replace=False)
    return lines[np.sort(chosen)]


def _lines_and_keys(rows: Rows, text: Callable[[Example], str]) -> tuple[Lines, Keys]:
    lines, keys = [], []
    for chunk in chunks(rows()):
        lines.append(np.array([row.line for row in chunk], np.int64))
        keys.append(split_words([text(row) for row in chunk]).keys())
    return np.concatenate(lines), np.concatenate(keys)


def _leaks(rows: list[Example], known: Keys) -> NDArray[np.bool_]:
    leaks = np.zeros(len(rows), bool)
    texts = [(i, text) for i, row in enumerate(rows) for text in _texts(row)]
    owner = np.array([i for i, _ in texts], np.int64)
    leaks[owner[among(split_words([text for _, text in texts]).keys(), known)]] = True
    return leaks


def _texts(row: Example) -> list[str]:
    return [text for text in (row.anchor, row.positive, *row.negatives) if text]

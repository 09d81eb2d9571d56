"""Subsets of training data: rows without duplicates, splits and samples."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse.data.duplicates import chunks, near_repeats, repeats, row_text
from simcse.data.word_hashes import Keys, among, split_words
from simcse.errors import ConfigError, DataError
from simcse.io.benchmarks import data_folder, read_sts
from simcse.io.columns import Columns
from simcse.io.files import Source, read_lines
from simcse.io.records import Example, Note, stream_examples
from simcse.io.training_files import filter_rows

Lines = NDArray[np.int64]


class RowSource:
    """A training file, and its rows as often as they are needed.

    Attributes:
        path: the file.
        header: physical line of its header, 0 without one; known once rows have been read.
    """

    def __init__(self, path: Path, columns: Columns = "", note: Note | None = None) -> None:
        self.path, self.columns, self.note = path, columns, note
        self.header = 0

    def rows(self) -> Iterable[Example]:
        """Yield the rows; the first call passes what was decided about columns to ``note``.

        Raises:
            DataError: the file cannot be read, or has no usable row.
        """
        source, note, self.note = Source(self.path), self.note, None
        yield from stream_examples(source, self.columns, note=note)
        self.header = source.counts.header
        if not source.counts.rows:
            raise DataError(f"{self.path}: no usable rows ({source.counts})")

    def write(self, lines: Lines, output: Path) -> None:
        """Write the rows that begin at ``lines``, and the header, to a file of the same format."""
        filter_rows(self.path, output, lines, header=self.header)


@dataclass(frozen=True)
class Deduped:
    """Lines of the remaining rows, and how many rows were dropped for which reason."""

    lines: Lines
    dropped: dict[str, int]


def evaluation_sentences(folder: Path | None = None) -> Iterable[str]:
    """Yield the sentences of the STS and transfer sets that are in the data folder."""
    home = data_folder(folder)
    for path in sorted((home / "sts").glob("*.tsv")):
        task = read_sts(path)
        yield from task.first
        yield from task.second
    for path in sorted((home / "transfer").glob("*.tsv")):
        for _, line in read_lines(Source(path)):
            yield from (line or "").split("\t")[1:]  # without the label


def dedupe(
    rows: Callable[[], Iterable[Example]], *, near: bool = False, leaks: Iterable[str] = ()
) -> Deduped:
    """Select the first of rows with the same words, regardless of case and punctuation.

    Args:
        rows: reads the rows; with ``near`` it is called twice.
        near: also drop rows that share 80 % of their words with one that is kept.
        leaks: also drop rows that contain one of these sentences.
    """
    known = np.unique(split_words(list(leaks)).keys())
    lines, keys, bands, leaked = [], [], [], []
    for chunk in chunks(rows()):
        words = split_words([row_text(row) for row in chunk])
        lines.append(np.array([row.line for row in chunk], np.int64))
        keys.append(words.keys())
        bands.append(words.bands() if near else np.zeros((len(chunk), 0), np.uint64))
        leaked.append(_leaks(chunk, known))
    key = np.concatenate(keys)
    reasons = {
        "without words": key == 0,
        "evaluation sentences": np.concatenate(leaked),
        "duplicates": repeats(key),
    }
    if near:
        reasons["near duplicates"] = near_repeats(key, np.concatenate(bands), rows)
    dropped, gone = {}, np.zeros(len(key), bool)
    for name, mask in reasons.items():
        dropped[name] = int((mask & ~gone).sum())
        gone |= mask
    return Deduped(np.concatenate(lines)[~gone], dropped)


def split(rows: Iterable[Example], fractions: dict[str, float], *, seed: int) -> dict[str, Lines]:
    """Assign rows to splits at random; rows with the same anchor get into the same split.

    Args:
        rows: read once.
        fractions: of the rows, by split; those of 0 are left out, and the rest must sum to 1.
        seed: random seed; nothing else but the words of the anchors decides the split.

    Raises:
        ConfigError: nothing would be left for training.
        DataError: a split would be empty.
    """
    if fractions.get("train", 1) <= 1e-9:
        raise ConfigError(f"the dev and test splits leave nothing to train on: {fractions}")
    fractions = {name: fraction for name, fraction in fractions.items() if fraction}
    found = [
        (
            np.array([row.line for row in chunk], np.int64),
            split_words([row.anchor for row in chunk]).keys(),
        )
        for chunk in chunks(rows)
    ]
    lines, keys = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    groups, owner, counts = np.unique(keys, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    ends = np.cumsum(list(fractions.values())) * len(lines)
    middle = np.cumsum(counts[order]) - counts[order] / 2
    number = np.empty(len(groups), np.int64)
    number[order] = np.minimum(np.searchsorted(ends, middle), len(fractions) - 1)
    splits = {name: lines[number[owner] == i] for i, name in enumerate(fractions)}
    for name, chosen in splits.items():
        if not len(chosen):
            raise DataError(f"split {name!r} would be empty: {len(groups):,} different anchors")
    return splits


def sample(rows: Iterable[Example], count: int, *, seed: int) -> Lines:
    """Choose ``count`` rows at random, in the order of the file.

    Raises:
        DataError: there are fewer.
    """
    lines = np.array([row.line for row in rows], np.int64)
    if count > len(lines):
        raise DataError(f"expected at least {count:,} rows, found {len(lines):,}")
    chosen = np.random.default_rng(seed).choice(len(lines), count, replace=False)
    return lines[np.sort(chosen)]


def _leaks(rows: list[Example], known: Keys) -> NDArray[np.bool_]:
    """(N,) bool: rows with a text among the ``known`` keys."""
    leaks = np.zeros(len(rows), bool)
    texts = [(i, text) for i, row in enumerate(rows) for text in row.texts]
    owner = np.array([i for i, _ in texts], np.int64)
    leaks[owner[among(split_words([text for _, text in texts]).keys(), known)]] = True
    return leaks

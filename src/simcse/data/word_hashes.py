"""Words of many texts at once, as arrays: counts, keys for equality, MinHash for similarity."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError

ROWS_PER_BAND, BANDS = 5, 8  # finds 96 % of pairs that share 80 % of their words, 99.9 % at 90 %
PAIRS = 1 << 16  # compared together
_HASH_BITS = np.uint64(48)  # of a word, below the number of its pair
_LIMIT = 1 << 27  # bytes hashed at once
Keys = NDArray[np.uint64]


def _letters() -> NDArray[np.uint8]:
    """Map each byte to a lower-case letter, a digit or itself if not ASCII; 0 separates words."""
    table = np.zeros(256, np.uint8)
    table[128:] = np.arange(128, 256)
    for first, last in ("09", "az"):
        table[ord(first) : ord(last) + 1] = np.arange(ord(first), ord(last) + 1)
    table[ord("A") : ord("Z") + 1] = np.arange(ord("a"), ord("z") + 1)
    return table


_LETTERS = _letters()
_CJK = (_LETTERS >= 0xE3) & (_LETTERS <= 0xE9)  # first bytes of U+3000-U+9FFF: no spaces there
_SPAN = 64  # positions of a letter in a word that have random numbers of their own
_POSITIONS = np.random.default_rng(0).integers(2**64, size=(_SPAN, 256), dtype=np.uint64)
_SEEDS = np.random.default_rng(1).integers(2**64, size=ROWS_PER_BAND * BANDS, dtype=np.uint64) | 1


@dataclass(frozen=True)
class WordHashes:
    """The words of N texts, W in all, regardless of case and punctuation."""

    hashes: Keys  # (W,) one for each word, text after text
    counts: NDArray[np.int64]  # (N,) words of each text

    @property
    def starts(self) -> NDArray[np.int64]:
        """(N,) index of each text's first word."""
        starts: NDArray[np.int64] = np.cumsum(self.counts) - self.counts
        return starts

    def keys(self) -> Keys:
        """(N,) equal where two texts have the same words in the same order; 0 without words."""
        position = np.arange(len(self.hashes)) - np.repeat(self.starts, self.counts)
        found = np.zeros(len(self.counts), np.uint64)
        some = self.counts > 0
        if some.any():
            placed = mix(self.hashes + mix(position.astype(np.uint64)))
            found[some] = np.add.reduceat(placed, self.starts[some])
        return found

    def bands(self) -> Keys:
        """(N, BANDS): texts that share most of their words agree in one or more; 0 without words.

        MinHash (Broder 1997), `ROWS_PER_BAND` minima to a band.
        """
        found = np.zeros((len(self.counts), BANDS), np.uint64)
        some = self.counts > 0
        starts = self.starts[some]
        if not len(starts):
            return found
        for number, seed in enumerate(_SEEDS):
            minima = np.minimum.reduceat((self.hashes ^ seed) * seed, starts)
            band = number // ROWS_PER_BAND
            found[some, band] = mix(found[some, band] + minima)
        return found

    def take(self, rows: NDArray[np.int64]) -> "WordHashes":
        """Return the words of some of the texts."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        offsets = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)
        return WordHashes(self.hashes[np.repeat(self.starts[rows], counts) + offsets], counts)


def split_words(texts: Sequence[str]) -> WordHashes:
    """Split texts into words of letters and digits, and hash each.

    Characters outside ASCII count as letters; each Chinese or Japanese one is a word.

    Raises:
        DataError: the texts together have more than 128 MB; split them into several calls.
    """
    raw = np.frombuffer("\n".join([*texts, ""]).encode(), np.uint8)
    if len(raw) > _LIMIT:
        raise DataError(f"expected at most {_LIMIT:,} bytes at once, found {len(raw):,}")
    letters = _LETTERS[raw]
    inside = letters > 0
    begins = inside & (~np.concatenate([[False], inside[:-1]]) | _CJK[raw])
    ends = np.flatnonzero(raw == ord("\n"))  # of texts
    counts = np.diff(np.searchsorted(np.flatnonzero(begins), ends), prepend=0)
    return WordHashes(_hash_words(letters[inside], np.flatnonzero(begins[inside])), counts)


def jaccard(words: WordHashes, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of words that two texts have in common: pairs (P, 2) -> (P,).

    Words in both over words in either, each counted once (Jaccard). P is at most `PAIRS`.
    """
    left, right = (_distinct(words.take(side)) for side in pairs.T)
    together = np.sort(np.concatenate([left, right]))
    twice = together[1:][together[1:] == together[:-1]]
    all_of, both = (_by_text(keys, len(pairs)) for keys in (together, twice))
    shares: NDArray[np.float64] = both / np.maximum(all_of - both, 1)
    return shares


def among(keys: Keys, known: Keys) -> NDArray[np.bool_]:
    """(N,) bool: which keys are in ``known``, which is sorted; the key 0 of no words never is."""
    if not len(known):
        return np.zeros(len(keys), bool)
    positions = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found: NDArray[np.bool_] = (known[positions] == keys) & (keys != 0)
    return found


def mix(values: Keys) -> Keys:
    """Spread 64-bit numbers evenly (the finalizer of SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Keys = values ^ (values >> np.uint64(31))
    return mixed


def _distinct(words: WordHashes) -> Keys:
    """Return each text's words once: the text's number in the upper bits, a hash below."""
    owner = np.repeat(np.arange(len(words.counts), dtype=np.uint64), words.counts)
    keys = np.sort((owner << _HASH_BITS) | (words.hashes >> (np.uint64(64) - _HASH_BITS)))
    distinct: Keys = keys[np.diff(keys, prepend=~keys[:1]) != 0]
    return distinct


def _by_text(keys: Keys, count: int) -> NDArray[np.int64]:
    return np.bincount((keys >> _HASH_BITS).astype(np.int64), minlength=count)


def _hash_words(letters: NDArray[np.uint8], starts: NDArray[np.int64]) -> Keys:
    if not len(starts):
        return np.empty(0, np.uint64)
    lengths = np.diff(starts, append=len(letters))
    position = np.arange(len(letters)) - np.repeat(starts, lengths)
    values = _POSITIONS[position % _SPAN, letters] * (2 * (position // _SPAN) + 1).astype(np.uint64)
    return mix(np.add.reduceat(values, starts))

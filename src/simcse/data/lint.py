"""What is wrong with training data: counts, examples by line, and the mend of each."""

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simcse.data.duplicates import chunks, near_repeats, repeats, row_text
from simcse.data.language import SCRIPTS, guess_language, script_letters
from simcse.data.words import Keys, Words, among, split_words
from simcse.errors import DataError
from simcse.io.records import Example, stream_examples
from simcse.io.files import Source, file_format

LONG = 128  # words; more is a document, not a sentence
SHORT = 3  # words; fewer say little
SHOWN = 5  # examples of a finding
SAMPLED = 200  # rows of a chunk whose language is guessed
BINS = (0, 1, 3, 6, 11, 21, 41, 81, 161)  # words of an anchor: the histogram's lower ends
BIASED = 0.1  # off an even share of shorter negatives

_PATTERNS = {  # none goes beyond its line
    # UTF-8 that was read as Windows-1252 once
    "damaged encoding": re.compile("\ufffd|[ÂÃ][\x80-\xbf]|â€|ï¿½"),
    "markup": re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d+);|</?[a-zA-Z][^<>\n]*>"),
}

_DEDUPE = "simcse data dedupe FILE --output NEW"
MENDS = {  # in the order they are shown
    "unreadable rows": "correct them, or train with data.bad_lines=skip",
    "blank lines": "nothing: they are passed over",
    "rows without words": f"{_DEDUPE} drops them",
    "duplicate rows": _DEDUPE,
    "near-duplicate rows": f"{_DEDUPE} --near",
    "anchors that come again": "nothing: loss.mask_duplicates=true, the default, masks them",
    "rows with an evaluation sentence": f"{_DEDUPE} --leaks; else scores on that set mean nothing",
    "positive is the anchor": "drop them: they teach nothing",
    "negative is the positive": "drop them: they teach the contrary",
    "negative is the anchor": "drop them: they teach the contrary",
    "very long anchors": "split documents into sentences; what is over model.max_length is cut",
    "very short anchors": "drop what is no sentence",
    "damaged encoding": "decode the source anew; this text was read in the wrong encoding once",
    "markup": "strip tags and entities",
    "rows in another script": "leave out other languages, unless the backbone knows them",
    "length bias": "draw negatives of the positives' length, or length is what is learned",
}


@dataclass(frozen=True)
class Finding:
    """One kind of trouble: how many rows, where the first of them are, what to do."""

    name: str
    count: int
    examples: tuple[str, ...]
    mend: str


@dataclass(frozen=True)
class Diagnosis:
    """All that was found in a file.

    Attributes:
        path: the file.
        rows: usable rows.
        findings: what was found at least once.
        lengths: anchors by words, under the lower end of each of `BINS`.
        scripts: share of letters by script.
        languages: share of sampled anchors by language, a rough guess.
        words: mean words of anchors, positives and negatives.
    """

    path: str
    rows: int
    findings: tuple[Finding, ...]
    lengths: dict[int, int]
    scripts: dict[str, float]
    languages: dict[str, float]
    words: dict[str, float]


@dataclass(frozen=True)
class _Noting(Source):
    """A source that goes on behind bad rows, and remembers the first of them."""

    bad: list[str] = field(default_factory=list)
    bad_lines_seen: set[int] = field(default_factory=set)

    def refuse(self, where: int | str, problem: str) -> None:
        """Count a bad row."""
        self.counts.skipped += 1
        self.bad_lines_seen.add(int(str(where).partition(":")[0]))
        if len(self.bad) < SHOWN:
            self.bad.append(f"{where} ({problem})")


def diagnose(
    path: Path, *, columns: Sequence[str] = (), evaluation: Iterable[str] = ()
) -> Diagnosis:
    """Examine a training file, read as training reads it; about 100 bytes a row are held.

    Args:
        path: the file.
        columns: as in training.
        evaluation: sentences that must not be trained on.

    Raises:
        DataError: the file cannot be read, or has no usable row.
    """
    if str(path) == "-":
        raise DataError("the data doctor reads a file twice, which standard input cannot be")
    source = _Noting(path)
    survey = _Survey(np.unique(split_words(list(evaluation)).keys()))
    for rows in chunks(stream_examples(source, columns)):
        survey.examine(rows)
    if not survey.rows:
        raise DataError(f"{source}: no usable rows ({source.counts})")
    survey.compare(lambda: stream_examples(_Noting(path), columns))
    survey.count("unreadable rows", source.bad, source.counts.skipped)
    blank = survey.gaps(source.bad_lines_seen) if file_format(path) != "csv" else []
    survey.count("blank lines", blank, source.counts.blank)
    return survey.diagnosis(str(path))


class _Survey:
    """What is known of the rows so far: totals, first examples, and 90 bytes for each row."""

    def __init__(self, evaluation: Keys) -> None:
        self.evaluation = evaluation
        self.rows = self.supervised = 0
        self.totals: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.lines: list[NDArray[np.int64]] = []
        self.keys: list[Keys] = []
        self.anchors: list[Keys] = []
        self.bands: list[Keys] = []
        self.scripts: list[NDArray[np.int8]] = []
        self.letters = np.zeros(len(SCRIPTS), np.int64)
        self.lengths = np.zeros(len(BINS), np.int64)
        self.languages: Counter[str] = Counter()
        self.words: dict[str, list[int]] = {}  # words and texts of a column
        self.shorter = Counter({"yes": 0, "no": 0})

    def count(self, name: str, examples: Iterable[object], total: int) -> None:
        """Count ``total`` rows under a name of `MENDS` and remember where the first are."""
        self.totals[name] += total
        known = self.examples.setdefault(name, [])
        known += [str(example) for example in islice(examples, SHOWN - len(known))]

    def mark(self, name: str, lines: NDArray[np.int64], chosen: NDArray[np.bool_]) -> None:
        """Count the rows that are ``chosen``."""
        self.count(name, lines[chosen][:SHOWN], int(chosen.sum()))

    def examine(self, rows: Sequence[Example]) -> None:
        """Take in some rows."""
        lines = np.array([row.line for row in rows], np.int64)
        texts = [row_text(row) for row in rows]
        words = split_words(texts)
        keys = words.keys()
        self.rows += len(rows)
        self.lines.append(lines)
        self.keys.append(keys)
        self.bands.append(words.bands())
        self.mark("rows without words", lines, keys == 0)
        self._read(lines, texts, [row.anchor for row in rows])
        single = all(row.positive is None for row in rows)  # then a row is its anchor
        self._columns(lines, rows, words if single else split_words([r.anchor for r in rows]))

    def compare(self, rows: Callable[[], Iterable[Example]]) -> None:
        """Compare all rows with each other; ``rows`` reads them once more."""
        lines, keys = np.concatenate(self.lines), np.concatenate(self.keys)
        self.mark("duplicate rows", lines, repeats(keys))
        near = near_repeats(keys, np.concatenate(self.bands), rows)
        self.mark("near-duplicate rows", lines, near)
        if self.supervised:
            self.mark("anchors that come again", lines, repeats(np.concatenate(self.anchors)))
        script, main = np.concatenate(self.scripts), int(self.letters.argmax())
        japanese = [SCRIPTS.index("Kana"), SCRIPTS.index("Han")]
        ours = japanese if main in japanese else [main]
        self.mark("rows in another script", lines, (script >= 0) & ~np.isin(script, ours))

    def gaps(self, bad: Container[int]) -> Iterator[int]:
        """Yield the lines between rows that hold none and are not ``bad``."""
        lines = np.concatenate([[0], *self.lines])
        for i in np.flatnonzero(np.diff(lines) > 1):
            yield from (n for n in range(int(lines[i]) + 1, int(lines[i + 1])) if n not in bad)

    def diagnosis(self, path: str) -> Diagnosis:
        """Sum up."""
        self._bias()
        findings = tuple(
            Finding(name, self.totals[name], tuple(self.examples[name]), mend)
            for name, mend in MENDS.items()
            if self.totals[name]
        )
        letters, sampled = max(1, self.letters.sum()), max(1, self.languages.total())
        return Diagnosis(
            path,
            self.rows,
            findings,
            dict(zip(BINS, self.lengths.tolist(), strict=True)),
            {SCRIPTS[i]: float(n / letters) for i, n in enumerate(self.letters) if n},
            {name: n / sampled for name, n in self.languages.most_common()},
            {name: words / texts for name, (words, texts) in self.words.items()},
        )

    def _read(self, lines: NDArray[np.int64], texts: Sequence[str], anchors: Sequence[str]) -> None:
        """Look at characters: encoding, markup, script, language."""
        joined, ends = "\n".join(texts), np.cumsum([len(text) + 1 for text in texts])
        for name, pattern in _PATTERNS.items():
            found = np.zeros(len(texts), bool)
            places = [match.start() for match in pattern.finditer(joined)]
            found[np.searchsorted(ends, places, side="right")] = True
            self.mark(name, lines, found)
        letters = script_letters(anchors)  # (N, S)
        script = np.where(letters.any(axis=1), letters.argmax(axis=1), -1).astype(np.int8)
        self.letters += letters.sum(axis=0)
        self.scripts.append(script)
        for i in range(0, len(anchors), max(1, len(anchors) // SAMPLED)):
            if script[i] >= 0:
                self.languages[guess_language(anchors[i], SCRIPTS[script[i]])] += 1

    def _columns(self, lines: NDArray[np.int64], rows: Sequence[Example], anchor: Words) -> None:
        """Look at anchors, positives and negatives, and at how they compare."""
        negatives = [text for row in rows for text in row.negatives]
        owner = np.repeat(np.arange(len(rows)), [len(row.negatives) for row in rows])
        positive = split_words([row.positive or "" for row in rows])
        negative = split_words(negatives)
        self.lengths += np.bincount(
            np.searchsorted(BINS, anchor.counts, side="right") - 1, minlength=len(BINS)
        )
        self.mark("very long anchors", lines, anchor.counts > LONG)
        self.mark("very short anchors", lines, (anchor.counts > 0) & (anchor.counts < SHORT))
        leaks = among(anchor.keys(), self.evaluation) | among(positive.keys(), self.evaluation)
        leaks[owner[among(negative.keys(), self.evaluation)]] = True
        self.mark("rows with an evaluation sentence", lines, leaks)
        supervised = np.array([row.positive is not None for row in rows])
        self.supervised += int(supervised.sum())
        self.anchors.append(anchor.keys())
        self.mark("positive is the anchor", lines, supervised & (positive.keys() == anchor.keys()))
        for name, other in (("positive", positive), ("anchor", anchor)):
            same = np.zeros(len(rows), bool)
            same[owner[negative.keys() == other.keys()[owner]]] = True
            self.mark(f"negative is the {name}", lines, same)
        columns = {"anchor": anchor.counts, "positive": positive.counts[supervised]}
        for name, counts in {**columns, "negative": negative.counts}.items():
            total = self.words.setdefault(name, [0, 0]) if len(counts) else [0, 0]
            total[0] += int(counts.sum())
            total[1] += len(counts)
        difference = negative.counts - positive.counts[owner]
        self.shorter.update(yes=int((difference < 0).sum()), no=int((difference > 0).sum()))

    def _bias(self) -> None:
        """Say whether length alone tells a row's negatives from its positive."""
        yes, compared = self.shorter["yes"], self.shorter.total()
        share = yes / compared if compared else 0.5
        if abs(share - 0.5) > BIASED:
            told = f"{share:.0%} of the negatives that differ in length are shorter"
            self.count("length bias", [told], max(yes, compared - yes))

"""Problems of training data: counts, examples by line, and a fix for each."""

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
from simcse.data.word_hashes import Keys, WordHashes, among, split_words
from simcse.errors import DataError
from simcse.io.columns import Columns
from simcse.io.files import Source, file_format
from simcse.io.records import Example, Note, stream_examples

LONG = 128  # words; more is a document, not a sentence
SHORT = 3  # words; fewer carry little meaning
SHOWN = 5  # examples of a finding
SAMPLED = 200  # rows of a chunk whose language is guessed
BINS = (0, 1, 3, 6, 11, 21, 41, 81, 161)  # words of an anchor: the histogram's lower ends
BAR = 40  # characters of the longest
BIASED = 0.1  # distance of the share of shorter negatives from one half

_PATTERNS = {  # each matches within one line
    # UTF-8 that was once decoded as Windows-1252
    "damaged encoding": re.compile("\ufffd|[ÂÃ][\x80-\xbf]|â€|ï¿½"),
    "markup": re.compile(r"&(?:amp|lt|gt|quot|nbsp|#\d+);|</?[a-zA-Z][^<>\n]*>"),
}

_DEDUPE = "simcse data dedupe FILE --output NEW"
FIXES = {  # in the order they are shown
    "unreadable rows": "correct them, or train with data.bad_lines=skip",
    "blank lines": "no action needed: readers skip them",
    "rows without words": f"run {_DEDUPE}, which drops them",
    "duplicate rows": f"run {_DEDUPE}",
    "near-duplicate rows": f"run {_DEDUPE} --near",
    "repeated anchors": "no action needed: loss.mask_duplicates=true, the default, masks them",
    "rows with an evaluation sentence": f"run {_DEDUPE} --leaks, or scores on that set are invalid",
    "positive is the anchor": "drop these rows: they add no information",
    "negative is the positive": "drop these rows: they push a pair apart",
    "negative is the anchor": "drop these rows: they push a sentence from itself",
    "very long anchors": "split documents into sentences; tokens over model.max_length are dropped",
    "very short anchors": "drop rows that are no sentences",
    "damaged encoding": "decode the source again; it was once read in the wrong encoding",
    "markup": "remove tags and entities",
    "rows in another script": "drop other languages, unless the backbone knows them",
    "length bias": "choose negatives as long as the positives, or the model learns the length",
}


@dataclass(frozen=True)
class Finding:
    """One problem: the number of rows, the lines of the first of them, and the fix."""

    name: str
    count: int
    examples: tuple[str, ...]
    fix: str


@dataclass(frozen=True)
class LintReport:
    """The problems and statistics of a file."""

    path: str  # the file
    rows: int  # number of usable rows
    findings: tuple[Finding, ...]  # problems that occur at least once
    lengths: dict[int, int]  # anchors by words, under the lower end of each of `BINS`
    scripts: dict[str, float]  # share of letters by script
    languages: dict[str, float]  # share of sampled anchors by language, a rough guess
    words: dict[str, float]  # mean number of words of anchors, positives and negatives


@dataclass(frozen=True)
class _RecordingSource(Source):
    """A source that skips bad rows and remembers the first of them."""

    bad: list[str] = field(default_factory=list)
    bad_numbers: set[int] = field(default_factory=set)

    def refuse(self, where: int | str, problem: str) -> None:
        """Count a bad row."""
        self.counts.skipped += 1
        self.bad_numbers.add(int(str(where).partition(":")[0]))
        if len(self.bad) < SHOWN:
            self.bad.append(f"{where} ({problem})")


def lint(
    path: Path, *, columns: Columns = "", evaluation: Iterable[str] = (), note: Note | None = None
) -> LintReport:
    """Check a training file, read as training reads it; memory is about 100 bytes a row.

    Args:
        path: the file, which is read twice.
        columns: as in training.
        evaluation: sentences that must not be trained on.
        note: called with a line about the columns.

    Raises:
        DataError: the file cannot be read, or has no usable row.
    """
    if str(path) == "-":
        raise DataError("lint reads a file twice, so standard input cannot be checked")
    source = _RecordingSource(path)
    survey = _Survey(np.unique(split_words(list(evaluation)).keys()))
    for rows in chunks(stream_examples(source, columns, note=note)):
        survey.add(rows)
    if not survey.rows:
        raise DataError(f"{source}: no usable rows ({source.counts})")
    survey.compare(lambda: stream_examples(_RecordingSource(path), columns))
    survey.count("unreadable rows", source.bad, source.counts.skipped)
    known = source.bad_numbers | {source.counts.header}
    blank = survey.gaps(known) if file_format(path) != "csv" else []
    survey.count("blank lines", blank, source.counts.blank)
    return survey.report(str(path))


def lint_text(report: LintReport) -> str:
    """Return a report as text."""
    lines = [f"{report.path}: {report.rows:,} usable rows", ""]
    for finding in report.findings:
        lines.append(f"{finding.name}: {finding.count:,} ({finding.count / report.rows:.2%})")
        if finding.examples:
            lines.append(f"  lines: {', '.join(finding.examples)}")
        lines.append(f"  fix:   {finding.fix}")
    if not report.findings:
        lines.append("no problems found")
    lines += ["", "anchors by number of words"]
    widest = max(report.lengths.values())
    for first, count in report.lengths.items():
        lines.append(f"  from {first:>3} {count:>9,} {'#' * round(BAR * count / widest)}")
    for title, shares in (("scripts", report.scripts), ("languages (guessed)", report.languages)):
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        lines.append(f"{title}: {', '.join(f'{name} {share:.1%}' for name, share in ordered[:6])}")
    means = ", ".join(f"{name} {words:.1f}" for name, words in report.words.items())
    return "\n".join([*lines, f"mean words: {means}"])


class _Survey:
    """Totals, first examples, and 90 bytes for each row added so far."""

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
        self.words: Counter[str] = Counter()  # by column
        self.texts: Counter[str] = Counter()
        self.shorter = self.longer = 0  # negatives than their positive

    def count(self, name: str, examples: Iterable[object], total: int) -> None:
        """Add ``total`` rows to a finding of `FIXES`, and remember the first examples."""
        self.totals[name] += total
        known = self.examples.setdefault(name, [])
        known += [str(example) for example in islice(examples, SHOWN - len(known))]

    def mark(self, name: str, lines: NDArray[np.int64], chosen: NDArray[np.bool_]) -> None:
        """Count the rows that are ``chosen``."""
        self.count(name, lines[chosen][:SHOWN], int(chosen.sum()))

    def add(self, rows: Sequence[Example]) -> None:
        """Check some rows by themselves."""
        lines = np.array([row.line for row in rows], np.int64)
        texts, anchors = [row_text(row) for row in rows], [row.anchor for row in rows]
        words = split_words(texts)
        keys = words.keys()
        self.rows += len(rows)
        self.lines.append(lines)
        self.keys.append(keys)
        self.bands.append(words.bands())
        self.mark("rows without words", lines, keys == 0)
        self._check_characters(lines, texts, anchors)
        single = all(row.positive is None for row in rows)  # then a row is its anchor
        self._check_columns(lines, rows, words if single else split_words(anchors))

    def compare(self, rows: Callable[[], Iterable[Example]]) -> None:
        """Compare all rows with each other; ``rows`` reads them once more."""
        lines, keys = np.concatenate(self.lines), np.concatenate(self.keys)
        self.mark("duplicate rows", lines, repeats(keys))
        near = near_repeats(keys, np.concatenate(self.bands), rows)
        self.mark("near-duplicate rows", lines, near)
        if self.supervised:
            self.mark("repeated anchors", lines, repeats(np.concatenate(self.anchors)))
        script, main = np.concatenate(self.scripts), int(self.letters.argmax())
        japanese = [SCRIPTS.index("Kana"), SCRIPTS.index("Han")]
        expected = japanese if main in japanese else [main]
        self.mark("rows in another script", lines, (script >= 0) & ~np.isin(script, expected))

    def gaps(self, known: Container[int]) -> Iterator[int]:
        """Yield the lines between rows that hold none and are not ``known``."""
        lines = np.concatenate([[0], *self.lines])
        for i in np.flatnonzero(np.diff(lines) > 1):
            yield from (n for n in range(int(lines[i]) + 1, int(lines[i + 1])) if n not in known)

    def report(self, path: str) -> LintReport:
        """Summarize."""
        self._check_length_bias()
        findings = tuple(
            Finding(name, self.totals[name], tuple(self.examples[name]), fix)
            for name, fix in FIXES.items()
            if self.totals[name]
        )
        letters, sampled = max(1, self.letters.sum()), max(1, self.languages.total())
        return LintReport(
            path,
            self.rows,
            findings,
            lengths=dict(zip(BINS, self.lengths.tolist(), strict=True)),
            scripts={SCRIPTS[i]: float(n / letters) for i, n in enumerate(self.letters) if n},
            languages={name: n / sampled for name, n in self.languages.most_common()},
            words={name: self.words[name] / count for name, count in self.texts.items() if count},
        )

    def _check_characters(
        self, lines: NDArray[np.int64], texts: Sequence[str], anchors: Sequence[str]
    ) -> None:
        """Check encoding, markup, script and language."""
        joined, ends = "\n".join(texts), np.cumsum([len(text) + 1 for text in texts])
        for name, pattern in _PATTERNS.items():
            found = np.zeros(len(texts), bool)
            starts = [match.start() for match in pattern.finditer(joined)]
            found[np.searchsorted(ends, starts, side="right")] = True
            self.mark(name, lines, found)
        letters = script_letters(anchors)  # (N, S)
        script = np.where(letters.any(axis=1), letters.argmax(axis=1), -1).astype(np.int8)
        self.letters += letters.sum(axis=0)
        self.scripts.append(script)
        for i in range(0, len(anchors), max(1, len(anchors) // SAMPLED)):
            if script[i] >= 0:
                self.languages[guess_language(anchors[i], SCRIPTS[script[i]])] += 1

    def _check_columns(
        self, lines: NDArray[np.int64], rows: Sequence[Example], anchor: WordHashes
    ) -> None:
        """Check anchors, positives and negatives, and compare them within their rows."""
        owner = np.repeat(np.arange(len(rows)), [len(row.negatives) for row in rows])
        positive = split_words([row.positive or "" for row in rows])
        negative = split_words([text for row in rows for text in row.negatives])
        bins = np.searchsorted(BINS, anchor.counts, side="right") - 1
        self.lengths += np.bincount(bins, minlength=len(BINS))
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
            self.words[name] += int(counts.sum())
            self.texts[name] += len(counts)
        difference = negative.counts - positive.counts[owner]
        self.shorter += int((difference < 0).sum())
        self.longer += int((difference > 0).sum())

    def _check_length_bias(self) -> None:
        """Check whether length alone separates a row's negatives from its positive."""
        compared = self.shorter + self.longer
        share = self.shorter / compared if compared else 0.5
        if abs(share - 0.5) > BIASED:
            text = f"{share:.0%} of the negatives that differ in length are shorter"
            self.count("length bias", [text], max(self.shorter, self.longer))

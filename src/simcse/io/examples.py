"""Training examples: what one row of sentences, pairs or triplets becomes."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from simcse.errors import ConfigError, DataError
from simcse.io.files import (
    BadLines,
    ReadCounts,
    Source,
    clean_text,
    file_format,
    read_json_lines,
    read_lines,
)
from simcse.io.parquet import read_parquet
from simcse.io.sentences import stream_numbered

Row = tuple[int, list[str]]  # physical line (or Parquet row) from 1; cells
Schemes = Sequence[tuple[str, str, str]]

# Keys in the order anchor, positive, hard negatives; the last are the reference project's.
SCHEMES = (
    ("anchor", "positive", "negatives"),
    ("anchor", "positive", "negative"),
    ("sent0", "sent1", "hard_neg"),
)
LABELED = (("label", "premise", "hypothesis"), ("gold_label", "sentence1", "sentence2"))
HEADER_WORDS = frozenset(
    "anchor positive negative negatives sent0 sent1 hard_neg sentence sentence1 sentence2 "
    "sentence_a sentence_b text text1 text2 premise hypothesis".split()
)


@dataclass(frozen=True, slots=True)
class Example:
    """One training row.

    Attributes:
        anchor: the sentence itself, or the NLI premise.
        positive: its positive; ``None`` means the anchor again under another dropout mask.
        negatives: hard negatives of this row, as many as the row has.
        file: where it was read; empty if it was not.
        line: its physical line (or Parquet row) there, from 1.
        label: what anchor and positive are to each other, where the rows are labeled.
    """

    anchor: str
    positive: str | None = None
    negatives: tuple[str, ...] = ()
    file: str = field(default="", compare=False, repr=False)
    line: int = field(default=0, compare=False, repr=False)
    label: str = ""


def read_examples(
    paths: str | Path | Iterable[str | Path],
    *,
    columns: Sequence[str] = (),
    labeled: bool = False,
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    limit: int | None = None,
) -> list[Example]:
    """Read training rows from one or more files, in their order, the first ``limit`` if given.

    ``.txt`` holds one sentence a line. ``.tsv`` (no quoting), ``.csv`` (RFC 4180 quoting),
    ``.jsonl`` and ``.parquet`` hold an anchor, a positive and any number of hard negatives; rows
    may differ in how many, and an empty negative is none. Text formats may end in ``.gz``.

    ``columns`` says where anchor, positive and hard negatives are; a single column makes
    unsupervised rows. In ``.tsv`` and ``.csv`` it also settles the header, which is never guessed:

    * names (``sent0,sent1,hard_neg``): the first row is a header and has these names;
    * numbers (``1,2,3``): there is no header, every row is data;
    * left out: no header, all columns in order, and a first row with a usual column name in it
      is refused, because it is either a header unnamed or a row that wants numbers.

    In ``.jsonl`` and ``.parquet`` names are keys; left out, `SCHEMES` are tried. A ``.jsonl`` line
    may also be a list of strings. ``.txt`` has no columns. With ``labeled`` a row is a label, a
    premise and a hypothesis (see `stream_labeled`).

    Raises:
        DataError: a file cannot be read, has a bad row (``file:line``, with
            ``bad_lines="error"``), a wrong or doubtful header, or there are no usable rows.
        ResourceError: a ``.parquet`` file, and the extra is not installed.

    Example:
        >>> read_examples("nli.csv", columns=["sent0", "sent1", "hard_neg"])  # doctest: +SKIP
        [Example(anchor='A man eats.', positive='Someone eats.', negatives=('No one eats.',))]
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    counts = ReadCounts() if counts is None else counts
    sources = [Source(Path(path), bad_lines, counts) for path in paths]
    stream = stream_labeled if labeled else stream_examples
    rows = chain.from_iterable(stream(source, columns) for source in sources)
    examples = list(islice(rows, limit))
    if not examples:
        raise DataError(f"{', '.join(map(str, sources))}: no usable rows ({counts})")
    return examples


def stream_examples(source: Source, columns: Sequence[str] = ()) -> Iterator[Example]:
    """Yield the rows of one file lazily, as `read_examples` reads them; maybe none."""
    if file_format(source.path) == "txt":
        file = str(source)
        return (Example(text, file=file, line=line) for line, text in stream_numbered(source))
    return _examples_of_rows(source, columns)


def as_pair(row: Example, path: Path) -> tuple[str, str]:
    """Return a row's anchor and positive.

    Raises:
        DataError: it has one sentence only.
    """
    if row.positive is None:
        raise DataError(f"{path}:{row.line}: expected pairs, got one sentence")
    return row.anchor, row.positive


def stream_labeled(source: Source, columns: Sequence[str] = ()) -> Iterator[Example]:
    """Yield the labeled pairs of one file lazily: a label, a premise and a hypothesis a row.

    The formats but ``.txt`` and the meaning of ``columns`` are those of `read_examples`; without
    them `LABELED` are the keys that are tried in ``.jsonl`` and ``.parquet``.

    Raises:
        DataError: while streaming, as `read_examples`.
    """
    if file_format(source.path) == "txt":
        raise DataError(f"{source}: expected a table of label, premise and hypothesis, got .txt")
    file = str(source)
    for number, cells in _rows(source, columns, LABELED):
        if len(cells) != 3 or not all(cells):
            shown = str(cells)[:80]
            source.refuse(number, f"expected a label, a premise and a hypothesis, got {shown}")
            continue
        source.counts.rows += 1
        label, premise, hypothesis = cells
        yield Example(premise, hypothesis, (), file, number, label)


def csv_rows(source: Source) -> Iterator[Row]:
    """Yield each record's first physical line and its cells; a quoted cell may span lines.

    Raises:
        DataError: a quote is left open or misplaced, with ``bad_lines="error"``.
    """
    last_bad = 0

    def physical_lines() -> Iterator[str]:
        nonlocal last_bad
        for number, line in read_lines(source):
            last_bad = number if line is None else last_bad
            yield (line or "").replace("\0", " ") + "\n"  # Python 3.10's csv refuses NUL

    reader = csv.reader(physical_lines(), strict=True)
    while True:
        first = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            source.refuse(first, f"bad CSV record, is a quote left open? ({error})")
            continue
        if last_bad < first:
            yield first, cells


def _examples_of_rows(source: Source, columns: Sequence[str]) -> Iterator[Example]:
    file = str(source)
    for number, cells in _rows(source, columns, SCHEMES):
        if not all(cells[:2]):
            source.refuse(number, f"the {'positive' if cells[0] else 'anchor'} is empty or missing")
            continue
        source.counts.rows += 1
        positive = cells[1] if len(cells) > 1 else None
        yield Example(cells[0], positive, tuple(filter(None, cells[2:])), file, number)


def _rows(source: Source, columns: Sequence[str], schemes: Schemes) -> Iterator[Row]:
    """Yield rows as cleaned cells in the order of ``columns`` or of one of ``schemes``."""
    name = file_format(source.path)
    if name == "tsv":
        rows = ((n, line.split("\t")) for n, line in read_lines(source) if line is not None)
        return _arranged(source, _cleaned(source, rows), columns)
    if name == "csv":
        return _arranged(source, _cleaned(source, csv_rows(source)), columns)
    if name == "jsonl":
        return _cleaned(source, _record_rows(source, read_json_lines(source), columns, schemes))
    if name == "parquet":
        records = read_parquet(source, columns)
        return _cleaned(source, _record_rows(source, records, columns, schemes))
    known = ".txt, .tsv, .csv, .jsonl (each also .gz) or .parquet"
    raise DataError(f"{source}: expected {known}, got the format {name!r}")


def _cleaned(source: Source, rows: Iterable[Row]) -> Iterator[Row]:
    for number, cells in rows:
        cleaned = [clean_text(cell) for cell in cells]
        if any(cleaned):
            yield number, cleaned
        else:
            source.counts.blank += 1


def _arranged(source: Source, rows: Iterator[Row], columns: Sequence[str]) -> Iterator[Row]:
    """Put a table's cells in order by the rule `read_examples` documents."""
    if not columns:
        return _in_order(source, rows)
    if all(column.isdecimal() for column in columns):
        if "0" in columns:
            raise ConfigError(f"columns are numbered from 1, got {','.join(columns)}")
        return _picked(source, rows, [int(column) - 1 for column in columns], width=None)
    return _below_header(source, rows, columns)


def _in_order(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    for position, (number, cells) in enumerate(rows):
        if position == 0 and not HEADER_WORDS.isdisjoint(cell.lower() for cell in cells):
            numbers = ",".join(str(column + 1) for column in range(len(cells)))
            raise DataError(
                f"{source}:{number}: {cells} looks like a header: give "
                f"columns={','.join(cells)} if it is, columns={numbers} if it is data"
            )
        if len(cells) < 2:
            source.refuse(
                number,
                "expected 2 or more columns (anchor, positive, hard negatives), got 1; "
                "give columns=1 to train on single sentences",
            )
        else:
            yield number, cells


def _below_header(source: Source, rows: Iterator[Row], columns: Sequence[str]) -> Iterator[Row]:
    number, header = next(rows, (1, []))
    if any(header.count(column) != 1 for column in columns):
        wanted = ",".join(columns)
        got = ",".join(header)
        raise DataError(f"{source}:{number}: expected a header with {wanted} once each, got {got}")
    return _picked(source, rows, [header.index(name) for name in columns], width=len(header))


def _picked(
    source: Source, rows: Iterator[Row], picks: list[int], *, width: int | None
) -> Iterator[Row]:
    for number, cells in rows:
        if width is not None and len(cells) > width:
            source.refuse(number, f"expected {width} columns as in the header, got {len(cells)}")
        else:
            yield number, [cells[pick] if pick < len(cells) else "" for pick in picks]


def _record_rows(
    source: Source,
    records: Iterator[tuple[int, Any]],
    columns: Sequence[str],
    schemes: Schemes,
) -> Iterator[Row]:
    for number, record in records:
        try:
            yield number, _record_cells(record, columns, schemes)
        except ValueError as error:
            source.refuse(number, str(error))


def _record_cells(
    record: Any,  # noqa: ANN401 - parsed JSON
    columns: Sequence[str],
    schemes: Schemes,
) -> list[str]:
    """Return the cells of a dictionary or list.

    Raises:
        ValueError: it is neither, has no known keys, or a value is not text.
    """
    if isinstance(record, dict):
        names = columns or _scheme(record, schemes)
        values = [record.get(name) for name in names]
        negatives = [text for value in values[2:] for text in _as_list(value)]
        cells = ["" if value is None else value for value in values[:2]] + negatives
    elif isinstance(record, list) and len(record) >= 2 and not columns:
        cells = record
    else:
        expected = "an object" if columns else "an object or a list of 2 or more strings"
        raise ValueError(f"expected {expected}, got {str(record)[:80]}")
    if not all(isinstance(cell, str) for cell in cells):
        raise ValueError(f"expected text, got {str(cells)[:80]}")
    return cells


def _scheme(record: dict[str, Any], schemes: Schemes) -> Sequence[str]:
    fitting = [names for names in schemes if names[0] in record and names[1] in record]
    if fitting:
        return max(fitting, key=lambda names: names[2] in record)
    known = " or ".join(", ".join(names) for names in schemes)
    raise ValueError(f"expected the keys {known}, got {', '.join(record)}; name yours by columns")


def _as_list(value: Any) -> list[Any]:  # noqa: ANN401 - parsed JSON
    """Return a hard-negative value, which may be one text, several or none, as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]

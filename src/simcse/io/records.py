"""The one reader of records: training rows, texts, rows of an index, and pairs.

Every command reads its input here, once, in a stream, from the formats of `simcse.io.formats` by
the columns of `simcse.io.columns`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from simcse.errors import DataError
from simcse.io.columns import (
    INDEX,
    LABELED,
    SCORED,
    TEXTS,
    TRAINING,
    Columns,
    Layout,
    Roles,
    find_layout,
    parse_columns,
)
from simcse.io.columns import LABELS as LABELS
from simcse.io.files import BadLines, ReadCounts, Source, clean_text, file_format
from simcse.io.formats import RawRow, open_rows
from simcse.io.rows import IndexRow, make_row

Note = Callable[[str], None]  # gets one line for each table: what its columns are taken for
Paths = str | Path | Iterable[str | Path]
ScoredPair = tuple[str, str, int]
Picked = tuple[int, list[Any], Any]  # line, values of the columns with roles, whole row


@dataclass(frozen=True, slots=True)
class Example:
    """One training row."""

    anchor: str  # the sentence itself, or the NLI premise
    # Its positive; None means the anchor again under another dropout mask.
    positive: str | None = None
    negatives: tuple[str, ...] = ()  # hard negatives of this row, any number of them
    # The file it was read from; empty if it was not read.
    file: str = field(default="", compare=False, repr=False)
    # Its physical line (or Parquet row) there, from 1.
    line: int = field(default=0, compare=False, repr=False)
    label: str = ""  # the relation of anchor and positive, where the rows are labeled

    @property
    def texts(self) -> list[str]:
        """All texts of the row."""
        return [text for text in (self.anchor, self.positive, *self.negatives) if text]

    @property
    def pair(self) -> tuple[str, str]:
        """Anchor and positive.

        Raises:
            DataError: there is one sentence only.
        """
        if self.positive is None:
            raise DataError(f"{self.file}:{self.line}: expected pairs, found one sentence")
        return self.anchor, self.positive


def read_examples(
    paths: Paths,
    *,
    columns: Columns = "",
    labeled: bool = False,
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    limit: int | None = None,
    note: Note | None = None,
) -> list[Example]:
    """Read training rows from one or more files, in their order, the first ``limit`` if given.

    ``.txt`` holds one sentence a line. ``.tsv`` (no quoting), ``.csv`` (RFC 4180 quoting),
    ``.jsonl`` (objects or lists) and ``.parquet`` hold an anchor, a positive and any number of
    hard negatives; an empty negative is none. Text formats may end in ``.gz``.

    ``columns`` names the columns of anchor, positive and hard negatives, by name or by position
    from 1, in this order (``question,answer``) or with roles (``positive=answer,anchor=question``);
    a single column makes unsupervised rows. Left out, columns are found by known names, or by
    their order if there are at most three, all of text.

    The first row of ``.tsv`` and ``.csv`` is a header if its cells are names (short, distinct, no
    sentence, no number) and the rows below are not, or if one is a known name. What was decided
    is passed to ``note``.

    Args:
        paths: one file or several.
        columns: see above.
        labeled: read a label, a premise and a hypothesis a row.
        bad_lines: stop at a bad row, or skip and count it.
        counts: counts rows, blank lines and skipped rows.
        limit: number of rows to read at most.
        note: called with a line such as ``a.csv: header found; anchor=question, ...``.

    Raises:
        DataError: a file cannot be read, has a bad row (``file:line``, with
            ``bad_lines="error"``), lacks a named column, or it is not clear what its columns
            are; or there are no usable rows.
        ConfigError: ``columns`` is malformed.
        ResourceError: a ``.parquet`` file, and the extra is not installed.

    Example:
        >>> read_examples("nli.csv", columns="sent0,sent1,hard_neg")  # doctest: +SKIP
        [Example(anchor='A man eats.', positive='Someone eats.', negatives=('No one eats.',))]
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    counts = ReadCounts() if counts is None else counts
    sources = [Source(Path(path), bad_lines, counts) for path in paths]
    parse_columns(columns, LABELED if labeled else TRAINING)
    streams = (stream_examples(s, columns, labeled=labeled, note=note) for s in sources)
    examples = list(islice(chain.from_iterable(streams), limit))
    if not examples:
        raise DataError(f"{', '.join(map(str, sources))}: no usable rows ({counts})")
    return examples


def stream_examples(
    source: Source, columns: Columns = "", *, labeled: bool = False, note: Note | None = None
) -> Iterator[Example]:
    """Yield the rows of one file lazily, as `read_examples` reads them; maybe none."""
    file, roles = str(source), LABELED if labeled else TRAINING
    required = 3 if labeled else 2
    for number, cells, _ in _read_texts(source, columns, roles, note):
        if not all(cells[:required]):
            role = roles.names[next(i for i, cell in enumerate(cells) if not cell)]
            source.refuse(number, f"the {role} is empty or missing")
            continue
        source.counts.rows += 1
        if labeled:
            yield Example(cells[1], cells[2], (), file, number, cells[0])
        else:
            positive = cells[1] if len(cells) > 1 else None
            yield Example(cells[0], positive, tuple(filter(None, cells[2:])), file, number)


def read_texts(
    path: str | Path,
    *,
    columns: Columns = "",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    note: Note | None = None,
) -> Iterator[str]:
    """Stream the sentences of a file, or of standard input for ``-``, in constant memory.

    ``.txt`` holds one sentence a line. Of tables and records the column ``columns`` is read, or
    else one called ``text`` or the like, or the only one that holds text. Blank sentences are
    passed over and counted. The first sentence is read at once, so an unreadable or empty file
    fails here, before a caller loads a model.

    Raises:
        DataError: the file cannot be read, holds no sentence, has several columns of text, or has
            a bad line (while streaming too) and ``bad_lines`` is ``"error"``.
        ResourceError: a ``.parquet`` file, and the extra is not installed.

    Example:
        >>> list(read_texts("wiki.txt.gz"))  # doctest: +SKIP
        ['One sentence.', 'Another.']
    """
    source = Source(Path(path), bad_lines, ReadCounts() if counts is None else counts)
    sentences = (text for _, text in stream_texts(source, columns, note=note))
    first = next(sentences, None)
    if first is None:
        raise DataError(f"{source}: no usable rows ({source.counts})")
    return chain([first], sentences)


def stream_texts(
    source: Source, columns: Columns = "", *, note: Note | None = None
) -> Iterator[tuple[int, str]]:
    """Yield line numbers and sentences lazily, as `read_texts` reads them; maybe none."""
    for number, (text,), _ in _read_texts(source, columns, TEXTS, note):
        if text:
            source.counts.rows += 1
            yield number, text
        else:
            source.counts.blank += 1


def read_index_rows(
    path: str | Path,
    *,
    columns: Columns = "",
    bad_lines: BadLines = "error",
    counts: ReadCounts | None = None,
    note: Note | None = None,
) -> Iterator[IndexRow]:
    """Stream the rows of an index from a file, or from standard input for ``-``.

    ``columns`` names the columns of text and id (``text=question,id=ticket_id``); left out, the
    text is found as `read_texts` finds it, and the id is the column ``id`` if there is one. Every
    other column is metadata; in ``.tsv`` and ``.csv`` all of it is text.

    Raises:
        DataError: while streaming: as `read_texts`, or a row has a bad id or bad metadata.
        ResourceError: a ``.parquet`` file, and the extra is not installed.
    """
    source = Source(Path(path), bad_lines, ReadCounts() if counts is None else counts)
    layout, rows = _read(source, columns, INDEX, note)
    for number, values, row in rows:
        text, row_id = (*values, None)[:2]
        if isinstance(text, str) and not clean_text(text):
            source.counts.blank += 1
            continue
        row_id = row_id if layout.parsed else row_id or None  # an empty cell is no id
        try:
            made = make_row(text, row_id, layout.others(row))
        except DataError as error:
            source.refuse(number, str(error))
        else:
            source.counts.rows += 1
            yield made


def read_pairs(
    path: str | Path,
    *,
    columns: Columns = "",
    limit: int | None = None,
    note: Note | None = None,
) -> list[tuple[str, str]]:
    """Read the first ``limit`` pairs of a file, such as queries and their documents.

    Raises:
        DataError: as `read_examples`, or a row has one sentence only.
    """
    rows = read_examples(path, columns=columns, limit=limit, note=note)
    return [row.pair for row in rows]


def read_scored_pairs(
    path: str | Path, *, columns: Columns = "", note: Note | None = None
) -> list[ScoredPair]:
    """Read pairs of sentences labeled 1, a match, or 0.

    ``columns`` names the columns of label, first and second sentence, which is also their order
    in a file without known names.

    Raises:
        DataError: the file cannot be read, is empty, or has a wrong row (``file:line``).
    """
    source = Source(Path(path))
    pairs = []
    for number, (label, *texts), _ in _read(source, columns, SCORED, note)[1]:
        if str(label) not in ("0", "1") or isinstance(label, bool):
            raise DataError(f"{source}:{number}: expected a label 0 or 1 and two sentences")
        first, second = (clean_text(text) if isinstance(text, str) else "" for text in texts)
        if not (first and second):
            raise DataError(f"{source}:{number}: a sentence is missing or blank")
        pairs.append((first, second, int(str(label))))
    if not pairs:
        raise DataError(f"{source}: no pairs")
    return pairs


def _read(
    source: Source, columns: Columns, roles: Roles, note: Note | None
) -> tuple[Layout, Iterator[Picked]]:
    """Open a file and decide about its columns; the rows are read lazily."""
    rows = open_rows(source)
    if not rows.sample and file_format(source.path) != "txt":
        for _ in rows.read(None):  # raises the error that the sample met
            pass
        return Layout(), iter(())
    layout = find_layout(source, rows, columns, roles)
    if note is not None and layout.note:
        note(layout.note)
    names = None if roles is INDEX else [str(key) for key in layout.keys]
    return layout, _picked(source, rows.read(names), layout)


def _picked(source: Source, rows: Iterator[RawRow], layout: Layout) -> Iterator[Picked]:
    """Yield line number, values of the layout's columns, and the whole row."""
    keys: Any = layout.keys
    if layout.header:
        source.counts.header, _ = next(rows)
    for number, row in rows:
        if isinstance(row, dict):
            yield number, [row.get(key) for key in keys], row
        elif layout.width is not None and len(row) > layout.width:
            limit = "as in the header" if layout.header else "at most, or --columns"
            source.refuse(number, f"expected {layout.width} columns {limit}, found {len(row)}")
        else:
            yield number, [row[key] if key < len(row) else "" for key in keys], row


def _read_texts(
    source: Source, columns: Columns, roles: Roles, note: Note | None
) -> Iterator[tuple[int, list[str], Any]]:
    """Yield rows whose values are texts, cleaned; a list holds several values of the last role."""
    layout, rows = _read(source, columns, roles, note)
    if not layout.parsed:  # cells are texts, and clean
        yield from rows
        return
    for number, values, row in rows:
        given = values[:2] + [text for value in values[2:] for text in _as_list(value)]
        texts = given if roles is TEXTS else ["" if text is None else text for text in given]
        if not all(isinstance(text, str) for text in texts):
            source.refuse(number, f"expected text, found {str(row)[:80]}")
            continue
        texts = [clean_text(text) for text in texts]
        if any(texts):
            yield number, texts, row
        else:
            source.counts.blank += 1


def _as_list(value: Any) -> Sequence[Any]:  # noqa: ANN401 - parsed JSON
    """Return a value of hard negatives, which may be one text, several or none, as a list."""
    return value if isinstance(value, list) else [value]

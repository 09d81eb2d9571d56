"""Transfer tasks: labeled sentences, or for MRPC labeled pairs of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simcse.errors import DataError
from simcse.io.files import Source, clean_text, read_lines, sha256_file


@dataclass(frozen=True, eq=False)
class LabeledSentences:
    """N examples of one file, in its order.

    Attributes:
        labels: (N,) as written: ``0`` and ``1``, or TREC's ``ABBR`` ... ``NUM``.
        first: (N,) sentences.
        second: (N,) the other sentence of each pair; empty where a task has no pairs.
        path: the file read.
        sha256: of the file's bytes.
    """

    labels: tuple[str, ...]
    first: tuple[str, ...]
    second: tuple[str, ...]
    path: Path
    sha256: str

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The sentence or two sentences of each example: one or two tuples (N,)."""
        return (self.first, self.second) if self.second else (self.first,)


@dataclass(frozen=True, eq=False)
class TransferTask:
    """One transfer task.

    Attributes:
        name: for example ``mr``.
        parts: ``all`` for a task that is cross-validated, else ``train``, ``test`` and, for
            SST-2, ``dev``.
        notes: what a reader of the results must know.
    """

    name: str
    parts: Mapping[str, LabeledSentences]
    notes: tuple[str, ...] = ()

    @property
    def sentences(self) -> Sequence[str]:
        """Every sentence of every part."""
        return [text for part in self.parts.values() for side in part.texts for text in side]


def read_labeled(path: str | Path) -> LabeledSentences:
    """Read ``label, sentence`` or ``label, sentence1, sentence2``: tab-separated, no header.

    Raises:
        DataError: a row has other columns than the first or an empty cell (``file:line``); the
            file cannot be read or has no rows.
    """
    source = Source(Path(path))
    rows: list[list[str]] = []
    for number, line in read_lines(source):
        if not line or not clean_text(line):
            continue
        cells = [clean_text(cell) for cell in line.split("\t")]
        width = len(rows[0]) if rows else len(cells)
        if width not in (2, 3) or len(cells) != width or not all(cells):
            expected = f"{width} columns" if rows else "label, sentence[, sentence2]"
            raise DataError(f"{source}:{number}: expected {expected}, none empty, got {cells}")
        rows.append(cells)
    if not rows:
        raise DataError(f"{source}: no usable rows")
    labels, first, *second = zip(*rows, strict=True)
    digest = sha256_file(source.path)
    return LabeledSentences(labels, first, second[0] if second else (), source.path, digest)

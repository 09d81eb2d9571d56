"""Semantic textual similarity: pairs of sentences and the similarity people gave them."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simcse.errors import DataError
from simcse.io.files import Source, clean_text, read_lines, sha256_file


@dataclass(frozen=True, eq=False)
class StsTask:
    """N rated pairs of one STS set.

    Attributes:
        name: for example ``sts12`` or ``stsb-test``.
        subsets: (N,) each pair's subset, for the aggregations ``mean`` and ``wmean``.
        scores: (N,) float64 ratings: 0 to 5, SICK 1 to 5.
        first: (N,) first sentences.
        second: (N,) second sentences.
        path: the file read; the folder, if several files were joined.
        sha256: of the file's bytes; of the files' digests in order, if several were joined.
        notes: what a reader of the results must know, such as a text not known to the project.
    """

    name: str
    subsets: tuple[str, ...]
    scores: np.ndarray
    first: tuple[str, ...]
    second: tuple[str, ...]
    path: Path
    sha256: str
    notes: tuple[str, ...] = ()


def read_sts(path: str | Path, *, name: str = "") -> StsTask:
    """Read ``subset, score, sentence1, sentence2[, label]``: tab-separated, no header, no quotes.

    The task is called after the file unless ``name`` is given.

    Raises:
        DataError: a row has other columns, an empty sentence or a score that is not a finite
            number (``file:line``); the file cannot be read or has no rows.
    """
    source = Source(Path(path))
    rows = []
    for number, line in read_lines(source):
        if line and clean_text(line):
            rows.append(_pair(line, f"{source}:{number}"))
    if not rows:
        raise DataError(f"{source}: no usable rows")
    subsets, scores, first, second = zip(*rows, strict=True)
    name = name or source.path.name.partition(".")[0]
    digest = sha256_file(source.path)
    return StsTask(name, subsets, np.array(scores), first, second, source.path, digest)


def join_sts(name: str, tasks: Sequence[StsTask]) -> StsTask:
    """Put the pairs of several tasks, from files of one folder, one after another."""
    digests = "".join(task.sha256 for task in tasks)
    return StsTask(
        name,
        subsets=tuple(subset for task in tasks for subset in task.subsets),
        scores=np.concatenate([task.scores for task in tasks]),
        first=tuple(sentence for task in tasks for sentence in task.first),
        second=tuple(sentence for task in tasks for sentence in task.second),
        path=tasks[0].path.parent,
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
        notes=tuple(note for task in tasks for note in task.notes),
    )


def _pair(line: str, where: str) -> tuple[str, float, str, str]:
    cells = [clean_text(cell) for cell in line.split("\t")]
    if len(cells) not in (4, 5):
        expected = "4 or 5 columns (subset, score, sentence1, sentence2[, label])"
        raise DataError(f"{where}: expected {expected}, got {len(cells)}")
    subset, rating, first, second = cells[:4]
    try:
        score = float(rating)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{where}: expected a finite number as score, got {rating!r}")
    if not (subset and first and second):
        raise DataError(f"{where}: the subset or a sentence is empty")
    return subset, score, first, second

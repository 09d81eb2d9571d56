"""The training files of a grid's rows: each is made once and reused."""

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from simcse.data.augment import augmentation, augmented_pairs
from simcse.data.neighbors import neighbor_pairs
from simcse.data.nli import nli_rows
from simcse.errors import ConfigError, DataError, ResourceError, SimcseError, UsageError
from simcse.io.benchmarks import FETCH_HINT, data_folder
from simcse.io.files import Source, sha256_file
from simcse.io.records import stream_examples
from simcse.io.results import read_results, write_results
from simcse.io.training_files import write_pairs
from simcse.paper.grid import Grid, GridRow, TrainingFileSpec
from simcse.train.provenance import model_sha256

SEED = 0  # of the random choices: every seed of a row trains on the same file


class MissingDataError(ResourceError):
    """Something that a row needs is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class TrainingFile:
    """A training file."""

    path: Path  # where it is
    corpus: str  # name of the file it was made from
    sha256: str  # of its bytes
    seconds: float = 0.0  # time that making it took

    def to_json(self) -> dict[str, Any]:
        """Return plain values, without this machine's paths."""
        return {"corpus": self.corpus, "sha256": self.sha256, "seconds": self.seconds}


def find_corpus(grid: Grid, row: GridRow, corpus: Path | None) -> Path:
    """Return the corpus of a row: its own, else the given one, else the grid's.

    Raises:
        DataError: there is no such file.
    """
    if row.corpus is None and corpus is not None:
        return corpus
    return find_file(Path(row.corpus or grid.corpus or ""))


def find_file(path: Path) -> Path:
    """Return a file of the current folder, or else of the data folder.

    Raises:
        DataError: there is none.
    """
    found = path if path.is_file() else data_folder() / path
    if not found.is_file():
        raise DataError(f"no file {path} here or in {found.parent}; {FETCH_HINT}")
    return found


class TrainingFiles:
    """Makes training files in a folder, and reuses those that it made before.

    ``masked_model`` predicts the words of the augmentation ``mlm``.
    """

    def __init__(self, folder: Path, masked_model: str | None = None) -> None:
        self.folder, self.masked_model = folder, masked_model
        self._hashes: dict[Path, str] = {}

    def prepare(self, spec: TrainingFileSpec, corpus: Path, sentences: int | None) -> TrainingFile:
        """Return a training file, and make it first if it does not exist.

        Args:
            spec: how it is made.
            corpus: what it is made from.
            sentences: number of rows from the start of the corpus; ``None`` for all.

        Raises:
            DataError: the corpus cannot be read or does not fit.
            MissingDataError: a model or package that it needs is missing.
            ResourceError: the disk is full.
        """
        source = self.sha256(corpus)
        if spec.make == "rows":
            return TrainingFile(corpus, corpus.name, source)
        limit = None if spec.make == "nli" else sentences  # which reads all rows of a label
        recipe = {**asdict(spec), "corpus": source, "sentences": limit}
        if spec.make == "mlm" and self.masked_model is not None:
            recipe["model"] = model_sha256(self.masked_model)
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        path, record = self.folder / f"{spec.make}-{key}.tsv", self.folder / f"{key}.json"
        if not (record.exists() and path.exists()):
            started = time.perf_counter()
            rows = self._rows(spec, corpus, sentences)
            write_pairs(path, rows, negatives=len(spec.hard_negatives))
            seconds = time.perf_counter() - started
            write_results(record, {"sha256": sha256_file(path), "seconds": seconds, **recipe})
        stored: dict[str, Any] = read_results(record)
        return TrainingFile(path, corpus.name, stored["sha256"], stored["seconds"])

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file, which is read once."""
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]

    def _rows(
        self, spec: TrainingFileSpec, corpus: Path, sentences: int | None
    ) -> Iterable[tuple[str, ...]]:
        if spec.make == "nli":
            return nli_rows(
                stream_examples(Source(corpus), labeled=True),
                positives=spec.positives or "",
                hard_negatives=spec.hard_negatives,
                seed=SEED,
            ).rows
        if spec.make == "neighbors":
            pairs = neighbor_pairs(Source(corpus), distance=spec.ahead or 1, seed=SEED)
            return islice(pairs, sentences)
        return self._augmented(spec, islice(_sentences(corpus), sentences))

    def _augmented(
        self, spec: TrainingFileSpec, anchors: Iterable[str]
    ) -> Iterator[tuple[str, ...]]:
        if spec.make == "mlm" and self.masked_model is None:
            raise MissingDataError(
                "no masked-language model: name one by --masked-model; `simcse pretrain` makes one"
            )
        model = self.masked_model if spec.make == "mlm" else None
        try:
            augment = augmentation(spec.make, spec.rate, model=model)
        except ConfigError:
            raise
        except SimcseError as error:  # WordNet, a package or the model is missing
            raise MissingDataError(str(error)) from error
        return augmented_pairs(anchors, augment, seed=SEED)


def _sentences(corpus: Path) -> Iterator[str]:
    for row in stream_examples(Source(corpus)):
        if row.positive is not None:
            raise DataError(f"{corpus}: expected one sentence per row, found pairs")
        yield row.anchor


def corpus_sentences(path: Path, limit: int | None) -> list[str]:
    """Return the distinct sentences of a training file's first rows, to fit a layer.

    Raises:
        UsageError: there are fewer than two.
    """
    rows = islice(stream_examples(Source(path)), limit)
    texts = (text for row in rows for text in row.texts)
    found = list(dict.fromkeys(texts))
    if len(found) < 2:
        raise UsageError(f"{path}: fitting a layer needs at least two sentences")
    return found

"""Training files that a grid's rows are made from: each is made once and kept."""

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
from simcse.paper.grid import Grid, Material, Row
from simcse.train.provenance import model_sha256

SEED = 0  # of what is drawn: every seed of a row trains on the same file


class MissingError(ResourceError):
    """What a row is made of is not on this machine; the message says how to get it."""


@dataclass(frozen=True)
class Prepared:
    """A training file.

    Attributes:
        path: where it is.
        corpus: the name of the file it was made from.
        sha256: of its bytes.
        seconds: what making it took, whenever that was.
    """

    path: Path
    corpus: str
    sha256: str
    seconds: float = 0.0

    def described(self) -> dict[str, Any]:
        """Return it in plain values, without this machine's paths."""
        return {"corpus": self.corpus, "sha256": self.sha256, "seconds": self.seconds}


def find_corpus(grid: Grid, row: Row, named: Path | None) -> Path:
    """Return the file a row is made from: its own, else the one named, else the grid's.

    A path that is none of the current folder is looked for below the data folder.

    Raises:
        DataError: there is no such file.
    """
    if row.corpus is None and named is not None:
        return named
    return find_file(Path(row.corpus or grid.corpus or ""))


def find_file(path: Path) -> Path:
    """Return a file of the current folder, or else of the data folder.

    Raises:
        DataError: there is none.
    """
    found = path if path.is_file() else data_folder() / path
    if not found.is_file():
        raise DataError(f"no file {path}: tried this folder and {found.parent}; {FETCH_HINT}")
    return found


class Materials:
    """Makes training files in a folder and remembers what was made.

    ``masked_model`` predicts the words of the augmentation ``mlm``.
    """

    def __init__(self, folder: Path, masked_model: str | None = None) -> None:
        self.folder, self.masked_model = folder, masked_model
        self._hashes: dict[Path, str] = {}

    def prepare(self, material: Material, corpus: Path, sentences: int | None) -> Prepared:
        """Return the training file, making it unless it is there.

        Args:
            material: what is made.
            corpus: from what.
            sentences: of its first rows only.

        Raises:
            DataError: the corpus cannot be read or is no fit for it.
            MissingError: an ingredient is not installed.
            ResourceError: the disk is full.
        """
        source = self.sha256(corpus)
        if material.make == "rows":
            return Prepared(corpus, corpus.name, source)
        limit = None if material.make == "nli" else sentences  # of all rows of a label, then
        recipe = {**asdict(material), "corpus": source, "sentences": limit}
        if material.make == "mlm" and self.masked_model is not None:
            recipe["model"] = model_sha256(self.masked_model)
        key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]
        path, known = self.folder / f"{material.make}-{key}.tsv", self.folder / f"{key}.json"
        if not (known.exists() and path.exists()):
            started = time.perf_counter()
            write_pairs(
                path,
                self._rows(material, corpus, sentences),
                negatives=len(material.hard_negatives),
            )
            seconds = time.perf_counter() - started
            write_results(known, {"sha256": sha256_file(path), "seconds": seconds, **recipe})
        stored: dict[str, Any] = read_results(known)
        return Prepared(path, corpus.name, stored["sha256"], stored["seconds"])

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file, read once."""
        if path not in self._hashes:
            self._hashes[path] = sha256_file(path)
        return self._hashes[path]

    def _rows(
        self, material: Material, corpus: Path, sentences: int | None
    ) -> Iterable[tuple[str, ...]]:
        """Return the rows of a file to make."""
        if material.make == "nli":
            return nli_rows(
                stream_examples(Source(corpus), labeled=True),
                positives=material.positives or "",
                hard_negatives=material.hard_negatives,
                seed=SEED,
            ).rows
        if material.make == "neighbors":
            pairs = neighbor_pairs(Source(corpus), distance=material.ahead or 1, seed=SEED)
            return islice(pairs, sentences)
        return self._augmented(material, islice(_sentences(corpus), sentences))

    def _augmented(self, material: Material, anchors: Iterable[str]) -> Iterator[tuple[str, ...]]:
        """Pair sentences with changed ones."""
        masked = self.masked_model if material.make == "mlm" else None
        if material.make == "mlm" and self.masked_model is None:
            raise MissingError(
                "no masked-language model: name one by --masked-model; `simcse pretrain` makes one"
            )
        try:
            change = augmentation(material.make, material.rate, model=masked)
        except ConfigError:
            raise
        except SimcseError as error:  # WordNet, a package or the model is not here
            raise MissingError(str(error)) from error
        return augmented_pairs(anchors, change, seed=SEED)


def _sentences(corpus: Path) -> Iterator[str]:
    """Yield the sentences of a corpus.

    Raises:
        DataError: it holds pairs.
    """
    for row in stream_examples(Source(corpus)):
        if row.positive is not None:
            raise DataError(f"{corpus}: expected one sentence a row, got pairs")
        yield row.anchor


def corpus_sentences(path: Path, limit: int | None) -> list[str]:
    """Return the different sentences of a training file's first rows, to fit a layer on.

    Raises:
        UsageError: there are fewer than two.
    """
    rows = islice(stream_examples(Source(path)), limit)
    texts = (text for row in rows for text in row.texts)
    found = list(dict.fromkeys(texts))
    if len(found) < 2:
        raise UsageError(f"{path}: a layer is fitted on two sentences or more")
    return found

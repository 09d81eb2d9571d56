"""The class of the original SimCSE code: the same calls, shapes and defaults, on this library.

Its return types depend on the argument types, and by default it hides hits below 0.6; both are as
they were, so that code written for it runs. New code should use `SentenceEncoder` and
`simcse.index`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from simcse.errors import UsageError
from simcse.index.uri import create_index, open_index
from simcse.io.records import read_texts
from simcse.io.rows import make_row
from simcse.model.encoder import SentenceEncoder
from simcse.model.fingerprint import model_fingerprint

Hits = list[tuple[str, float]]
Sentences = str | Sequence[str]
POOLERS: dict[str, dict[str, Any]] = {
    "cls": {"pooling": "cls", "head": "always"},
    "cls_before_pooler": {"pooling": "cls", "head": "none"},
    "avg": {"pooling": "mean", "head": "none"},
    "avg_top2": {"pooling": "mean_last_two", "head": "none"},
    "avg_first_last": {"pooling": "mean_first_last", "head": "none"},
}


class SimCSE:
    """Encode, compare and search sentences as the original SimCSE code did.

    Example:
        >>> model = SimCSE("mini")
        >>> model.similarity("A man plays the guitar.", "Someone makes music.") > 0.4
        True
        >>> model.build_index(["A man plays the guitar.", "The dog runs."])
        >>> [text for text, _ in model.search("a guitar player", threshold=0.4)]
        ['A man plays the guitar.']

    Args:
        model_name_or_path: a folder, a bundled name or a hub id.
        device: where the model runs; by default CUDA if there is any.
        num_cells: ignored, because search is exact.
        num_cells_in_search: ignored, too.
        pooler: one of `POOLERS`; by default what the model itself says. It is never guessed from
            the name, as in the original SimCSE code.

    Raises:
        UsageError: there is no such model or pooler.
    """

    def __init__(
        self,
        model_name_or_path: str,
        device: str | None = None,
        num_cells: int = 100,
        num_cells_in_search: int = 10,
        pooler: str | None = None,
    ) -> None:
        if pooler is not None and pooler not in POOLERS:
            raise UsageError(f"pooler must be one of {', '.join(POOLERS)}, got {pooler!r}")
        changes = None if pooler is None else POOLERS[pooler]
        self.encoder = SentenceEncoder.load(model_name_or_path, device=device, changes=changes)
        self.name = model_name_or_path
        self.index: dict[str, Any] | None = None

    def encode(
        self,
        sentence: Sentences,
        device: str | None = None,
        return_numpy: bool = False,
        normalize_to_unit: bool = True,
        keepdim: bool = False,
        batch_size: int = 64,
        max_length: int = 128,
    ) -> Tensor | np.ndarray:
        """Embed one sentence, (D,), or (1, D) with ``keepdim``, or a list of N, (N, D).

        Returns a tensor on the CPU, or with ``return_numpy`` an array. Sentences over
        ``max_length`` tokens are truncated. ``batch_size`` counts sentences of the longest length.
        """
        if device is not None:
            self.encoder.to(torch.device(device))
        single = isinstance(sentence, str)
        texts = [sentence] if isinstance(sentence, str) else list(sentence)
        vectors = self._vectors(texts, max_length, batch_size)
        if normalize_to_unit:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(lengths, 1e-12)
        if single and not keepdim:
            vectors = vectors[0]
        return vectors if return_numpy else torch.from_numpy(vectors)

    def similarity(
        self, queries: Sentences, keys: Sentences | np.ndarray, device: str | None = None
    ) -> float | np.ndarray:
        """Return cosines: a number for two sentences, (M,) for one query, (N, M) for N.

        ``keys`` may be M embeddings of unit length.
        """
        left = np.atleast_2d(self._units(queries, device))  # (N, D)
        given = keys if isinstance(keys, np.ndarray) else self._units(keys, device)
        right = np.atleast_2d(given)  # (M, D)
        cosines = left @ right.T  # (N, M)
        if isinstance(queries, str):
            return float(cosines[0, 0]) if given.ndim == 1 else np.asarray(cosines[0])
        return np.asarray(cosines[:, 0] if given.ndim == 1 else cosines)

    def build_index(
        self,
        sentences_or_file_path: Sentences,
        use_faiss: bool | None = None,
        faiss_fast: bool = False,
        device: str | None = None,
        batch_size: int = 64,
    ) -> None:
        """Index sentences, or a file's (a string is a path); blank lines are skipped.

        The search is exact, whatever ``use_faiss`` and ``faiss_fast`` say.
        """
        self.index = {"sentences": [], "index": np.empty((0, self.encoder.dimensions), np.float32)}
        self.add_to_index(sentences_or_file_path, device=device, batch_size=batch_size)

    def add_to_index(
        self, sentences_or_file_path: Sentences, device: str | None = None, batch_size: int = 64
    ) -> None:
        """Add sentences, or a file's, to the index.

        Raises:
            UsageError: there is no index yet.
        """
        index = self._require_index()
        given = sentences_or_file_path
        texts = list(read_texts(given) if isinstance(given, str) else given)
        vectors = self._units(texts, device, batch_size=batch_size)
        index["sentences"] = [*index["sentences"], *texts]
        index["index"] = np.concatenate([index["index"], vectors])

    def search(
        self, queries: Sentences, device: str | None = None, threshold: float = 0.6, top_k: int = 5
    ) -> Hits | list[Hits]:
        """Return the best sentences with their cosines, of each query if it is a list.

        Hits below ``threshold`` are left out, by default below 0.6, as in the original SimCSE code.

        Raises:
            UsageError: there is no index yet.
        """
        index = self._require_index()
        cosines = np.atleast_2d(self._units(queries, device)) @ index["index"].T  # (N, M)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :top_k]
        found = [
            [(index["sentences"][at], float(row[at])) for at in best if row[at] >= threshold]
            for row, best in zip(cosines, order, strict=True)
        ]
        return found[0] if isinstance(queries, str) else found

    def save_index(self, folder: str | Path) -> None:
        """Save the index as a new folder, which `simcse index` and `load_index` read.

        Raises:
            UsageError: there is no index yet, or something is in the folder.
        """
        index = self._require_index()
        stored = create_index(folder, model_fingerprint(self.encoder, self.name))
        rows = [make_row(text, at) for at, text in enumerate(index["sentences"])]
        stored.add(rows, index["index"])
        stored.commit()

    def load_index(self, folder: str | Path) -> None:
        """Load an index that `save_index` or `simcse index build` made with the same model.

        Raises:
            ArtifactError: it is damaged, or another model's.
        """
        stored = open_index(folder)
        stored.metadata.require_model(model_fingerprint(self.encoder, self.name))
        rows, vectors = stored.sample(len(stored))
        self.index = {"sentences": [row.text for row in rows], "index": vectors}

    def _units(self, texts: Sentences, device: str | None, *, batch_size: int = 64) -> np.ndarray:
        return np.asarray(
            self.encode(texts, device=device, return_numpy=True, batch_size=batch_size)
        )

    def _vectors(self, texts: list[str], max_length: int, batch_size: int) -> np.ndarray:
        tokenizer = self.encoder.tokenizer
        own = tokenizer.max_length
        tokenizer.max_length = min(max_length, self.encoder.backbone.max_positions or max_length)
        try:
            limit = batch_size * tokenizer.max_length
            return self.encoder.encode(texts, batch_tokens=limit, truncation="truncate")
        finally:
            tokenizer.max_length = own

    def _require_index(self) -> dict[str, Any]:
        if self.index is None:
            raise UsageError("there is no index yet; call build_index or load_index first")
        return self.index

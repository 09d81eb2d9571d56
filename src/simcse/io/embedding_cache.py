"""A disk cache of embeddings: one folder a model fingerprint, one file a block."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from simcse.errors import ArtifactError
from simcse.io.benchmarks import cache_folder
from simcse.io.checkpoints import read_safetensors, write_safetensors

KEY_BYTES = 16


class EmbeddingCache:
    """Vectors by sentence, for one model fingerprint.

    The folder may be deleted at any time; a damaged file counts as absent and is replaced.
    """

    def __init__(self, fingerprint: str, *, folder: Path | None = None) -> None:
        root = cache_folder().parent / "embeddings" if folder is None else folder
        self.folder = root / fingerprint

    def read(self, sentences: Sequence[str]) -> dict[int, NDArray[np.float32]]:
        """Return the stored vectors by the position of their sentence."""
        numbers = {_key(sentence): number for number, sentence in enumerate(sentences)}
        found: dict[int, NDArray[np.float32]] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                block = read_safetensors(path)
                keys, vectors = block["keys"].numpy(), block["vectors"].numpy()
            except (ArtifactError, KeyError):
                continue
            for key, vector in zip(keys, vectors, strict=False):
                number = numbers.get(key.tobytes())
                if number is not None:
                    found[number] = vector
        return found

    def write(self, sentences: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Store one block.

        Raises:
            ResourceError: the disk is full or read-only.
        """
        keys = np.frombuffer(b"".join(map(_key, sentences)), np.uint8).reshape(-1, KEY_BYTES)
        name = hashlib.sha256(keys.tobytes()).hexdigest()[:16]
        block = {"keys": torch.from_numpy(keys.copy()), "vectors": torch.from_numpy(vectors)}
        write_safetensors(self.folder / f"{name}.safetensors", block)


def _key(sentence: str) -> bytes:
    return hashlib.blake2b(sentence.encode(), digest_size=KEY_BYTES).digest()

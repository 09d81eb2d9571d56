"""One pass of encoding for all measures."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError
from simcse.evaluate import Encode
from simcse.io.embedding_cache import EmbeddingCache

BLOCK = 8192  # sentences encoded and kept together: what an interruption may lose


def embed_once(
    encode: Encode,
    sentences: Iterable[str],
    *,
    cache: EmbeddingCache | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Encode:
    """Encode each distinct sentence once and return an `Encode` that looks them up.

    Args:
        encode: what is asked for the sentences that are not known yet.
        sentences: all that will ever be looked up.
        cache: where vectors are kept from one evaluation to the next.
        advance: is told how many of the distinct sentences are there, and their number.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        ResourceError: the cache cannot be written.

    Example:
        >>> look_up = embed_once(lambda texts: np.ones((len(texts), 2)), ["a", "b", "a"])
        >>> look_up(["b"]).shape
        (1, 2)
    """
    texts = list(dict.fromkeys(sentences))
    known = {} if cache is None else cache.read(texts)
    missing = [number for number in range(len(texts)) if number not in known]
    advance(len(known), len(texts))
    # Blocks of like length need the least padding; every encoder may count on it.
    missing.sort(key=lambda number: len(texts[number]))
    for start in range(0, len(missing), BLOCK):
        numbers = missing[start : start + BLOCK]
        block = [texts[number] for number in numbers]
        vectors = _encode(encode, block)
        if cache is not None:
            cache.write(block, vectors)
        known |= zip(numbers, vectors, strict=True)
        advance(len(known), len(texts))
    vectors = np.stack([known[number] for number in range(len(texts))])  # (U, D)
    rows = {text: number for number, text in enumerate(texts)}
    return lambda wanted: vectors[[rows[text] for text in wanted]]


def _encode(encode: Encode, texts: Sequence[str]) -> NDArray[np.float32]:
    found = encode(texts)
    try:
        vectors = np.asarray(found, np.float32)
    except (TypeError, ValueError) as error:  # a user's function may return anything
        kind = type(found).__name__
        raise DataError(f"encode must return numbers (N, D), got a {kind}: {error}") from error
    if vectors.ndim != 2 or len(vectors) != len(texts):
        expected = f"({len(texts)}, D) for {len(texts)} sentences"
        raise DataError(f"encode must return shape {expected}, got {vectors.shape}")
    return vectors

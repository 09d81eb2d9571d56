"""One pass of encoding that serves all tasks."""

from collections.abc import Callable, Iterable

import numpy as np

from simcse.evaluate import Encode
from simcse.evaluate.vectors import encode_checked
from simcse.io.embedding_cache import EmbeddingCache

BLOCK = 8192  # sentences encoded and cached together: the most that an interruption loses


def embed_once(
    encode: Encode,
    sentences: Iterable[str],
    *,
    cache: EmbeddingCache | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Encode:
    """Encode each distinct sentence once and return an `Encode` that serves them from memory.

    Args:
        encode: called for the sentences that are not cached.
        sentences: all that will ever be asked for.
        cache: stores vectors from one evaluation to the next.
        progress: called with the number of distinct sentences that are done, and their total.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        ResourceError: the cache cannot be written.

    Example:
        >>> stored = embed_once(lambda texts: np.ones((len(texts), 2)), ["a", "b", "a"])
        >>> stored(["b"]).shape
        (1, 2)
    """
    texts = list(dict.fromkeys(sentences))
    known = {} if cache is None else cache.read(texts)
    missing = [number for number in range(len(texts)) if number not in known]
    progress(len(known), len(texts))
    missing.sort(key=lambda number: len(texts[number]))  # texts of similar length need no padding
    for start in range(0, len(missing), BLOCK):
        numbers = missing[start : start + BLOCK]
        block = [texts[number] for number in numbers]
        vectors = encode_checked(encode, block).astype(np.float32, copy=False)
        if cache is not None:
            cache.write(block, vectors)
        known |= zip(numbers, vectors, strict=True)
        progress(len(known), len(texts))
    table = np.stack([known[number] for number in range(len(texts))])  # (U, D)
    rows = {text: number for number, text in enumerate(texts)}
    return lambda wanted: table[[rows[text] for text in wanted]]

"""What the suites over every implementation share."""

import numpy as np
import pytest

from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

DIMENSIONS = 16


@pytest.fixture
def fingerprint():
    return ModelFingerprint("a model", "a" * 64, DIMENSIONS, {"pooling": "mean"})


@pytest.fixture
def make_rows():
    """Rows ``0 .. count - 1`` with seeded vectors; every tenth is German, ``n`` is the number."""

    def make(count, *, seed=0):
        rows = [
            IndexRow(str(at), f"text {at}", {"n": at, "lang": "de" if at % 10 == 3 else "en"})
            for at in range(count)
        ]
        vectors = np.random.default_rng(seed).normal(size=(count, DIMENSIONS))
        return rows, vectors.astype(np.float32)

    return make

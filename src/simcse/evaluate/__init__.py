"""Evaluation of embeddings. Takes arrays or an ``Encode`` callable, never a model."""

from collections.abc import Callable, Sequence

import numpy as np

Encode = Callable[[Sequence[str]], np.ndarray]  # sentences -> (N, D) float32

"""Why contrastive training spreads embeddings, as the paper argues it, step by step in figures.

Gao et al. 2021, section 5: for unit embeddings W (m, D) the second term of the loss is an upper
bound of the sum of all cells of W W^T (Jensen). Its trace is fixed, and where no cell is negative
the sum bounds the largest eigenvalue (Merikoski 1984); so training lowers that eigenvalue, which
flattens the spectrum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from simcse.errors import DataError
from simcse.evaluate.vectors import unit

TILE = 1024  # rows of the similarity matrix held at once
ROUNDING = 1e-9  # relative: where a bound is met with equality


@dataclass(frozen=True, slots=True)
class Isotropy:
    """Each step of the bound, for m sentences.

    Attributes:
        log_mean_exp: mean over sentences of log(mean of exp(cosine / temperature)), the loss's
            second term with all m sentences as negatives.
        mean: of all m x m cosines.
        largest_eigenvalue: of W W^T, from the mean of a row's sum up to m.
        total: the sum of all cosines.
        negative_share: of pairs of different sentences, those with a negative cosine, 0 to 1.
        sentences: m.
        temperature: divisor of the cosine.
    """

    log_mean_exp: float
    mean: float
    largest_eigenvalue: float
    total: float
    negative_share: float
    sentences: int
    temperature: float

    @property
    def is_jensen(self) -> bool:
        """Whether log-mean-exp >= mean / temperature; it must."""
        return _reaches(self.log_mean_exp, self.mean / self.temperature)

    @property
    def is_above_mean(self) -> bool:
        """Whether the largest eigenvalue >= m times the mean; it must."""
        return _reaches(self.largest_eigenvalue, self.sentences * self.mean)

    @property
    def is_below_sum(self) -> bool:
        """Whether the largest eigenvalue <= the sum; it must where no cosine is negative."""
        return _reaches(self.total, self.largest_eigenvalue)


def measure_isotropy(vectors: ArrayLike, *, temperature: float = 0.05) -> Isotropy:
    """Measure the bound on vectors (m, D), one a distinct sentence; exact, in the memory of a tile.

    Raises:
        DataError: there are fewer than two vectors, or the temperature is not above 0.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> measure_isotropy([[1.0, 0.0], [0.0, 2.0]]).largest_eigenvalue
        1.0
    """
    rows = unit(vectors)
    count = len(rows)
    if count < 2 or not temperature > 0:
        raise DataError(
            "isotropy needs at least two vectors and a temperature above 0, got "
            f"{count} and {temperature}"
        )
    logs, negative = 0.0, 0
    for start in range(0, count, TILE):
        cosines = rows[start : start + TILE] @ rows.T  # (T, m)
        scaled = cosines / temperature
        top = scaled.max(axis=1, keepdims=True)
        logs += float((np.log(np.exp(scaled - top).mean(axis=1)) + top[:, 0]).sum())
        negative += int((cosines < 0).sum())
    total = float((rows.sum(axis=0) ** 2).sum())
    square = rows.T @ rows if count > rows.shape[1] else rows @ rows.T  # of equal eigenvalues
    return Isotropy(
        log_mean_exp=logs / count,
        mean=total / count**2,
        largest_eigenvalue=float(np.linalg.eigvalsh(square)[-1]),
        total=total,
        negative_share=negative / (count * (count - 1)),
        sentences=count,
        temperature=temperature,
    )


def falls(values: Sequence[float]) -> int:
    """Count the looks at which a measure is below that of the look before."""
    return sum(now < before for before, now in zip(values, values[1:], strict=False))


def _reaches(value: float, bound: float) -> bool:
    return value >= bound - ROUNDING * max(abs(value), abs(bound))

"""The paper's argument for isotropy, each step as a number.

Gao et al. 2021, section 5: for unit embeddings W (m, D) the second term of the loss is an upper
bound of the sum of all cells of W W^T (Jensen). Its trace is fixed, and where no cell is negative
the sum bounds the largest eigenvalue (Merikoski 1984); so training lowers that eigenvalue, which
flattens the spectrum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from simcse.errors import DataError
from simcse.evaluate.vectors import unit

TILE = 1024  # rows of the similarity matrix held at once
ROUNDING = 1e-9  # relative: where a bound is met with equality


@dataclass(frozen=True, slots=True)
class Isotropy:
    """Each step of the bound, for m sentences."""

    # mean over sentences of log(mean of exp(cosine / temperature)), the loss's second term with all
    # m sentences as negatives
    log_mean_exp: float
    mean: float  # of all m x m cosines
    largest_eigenvalue: float  # of W W^T, from the mean of a row's sum up to m
    total: float  # the sum of all cosines
    negative_share: float  # of pairs of different sentences, those with a negative cosine, 0 to 1
    sentences: int  # m
    temperature: float  # divisor of the cosine

    @property
    def jensen_holds(self) -> bool:
        """Whether log-mean-exp >= mean / temperature; it must."""
        return _reaches(self.log_mean_exp, self.mean / self.temperature)

    @property
    def lower_bound_holds(self) -> bool:
        """Whether the largest eigenvalue >= m times the mean; it must."""
        return _reaches(self.largest_eigenvalue, self.sentences * self.mean)

    @property
    def upper_bound_holds(self) -> bool:
        """Whether the largest eigenvalue <= the sum; it must where no cosine is negative."""
        return _reaches(self.total, self.largest_eigenvalue)


def isotropy_bound(vectors: ArrayLike, *, temperature: float = 0.05) -> Isotropy:
    """Compute the bound for vectors (m, D), one row a distinct sentence; exact, tile by tile.

    Raises:
        DataError: there are fewer than two vectors, or the temperature is not above 0.
        NumericError: a row holds NaN or infinity.

    Example:
        >>> isotropy_bound([[1.0, 0.0], [0.0, 2.0]]).largest_eigenvalue
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
        logs += float(logsumexp(cosines / temperature, axis=1).sum())
        negative += int((cosines < 0).sum())
    total = float((rows.sum(axis=0) ** 2).sum())
    square = rows.T @ rows if count > rows.shape[1] else rows @ rows.T  # of equal eigenvalues
    return Isotropy(
        log_mean_exp=logs / count - math.log(count),
        mean=total / count**2,
        largest_eigenvalue=float(np.linalg.eigvalsh(square)[-1]),
        total=total,
        negative_share=negative / (count * (count - 1)),
        sentences=count,
        temperature=temperature,
    )


def count_falls(values: Sequence[float]) -> int:
    """Count the values that are below the one before."""
    return sum(now < before for before, now in zip(values, values[1:], strict=False))


def _reaches(value: float, bound: float) -> bool:
    return value >= bound - ROUNDING * max(abs(value), abs(bound))

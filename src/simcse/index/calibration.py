"""What a cosine means: its percentile in a corpus, and the probability of a match.

Cosines of two models, or of one model on two corpora, do not compare. The percentile says how
unusual a cosine is among random pairs of the index's own sentences; labeled pairs turn it into
a probability (Platt 1999: a logistic curve with smoothed targets).
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.index.protocol import VectorIndex

Floats = NDArray[np.float64]
PAIRS = 200_000
ROWS = 20_000  # sample that the pairs are drawn from
QUANTILES = 1001
FOLDS = 5
LEAST = 10  # labeled matches, and labeled others


@dataclass(frozen=True)
class Match:
    """The probability that a pair is a match, and a threshold."""

    slope: float  # of the logistic curve over the cosine
    intercept: float  # of the logistic curve
    threshold: float  # lowest cosine of a pair that counts as a match
    # Share of matches among pairs at or above the threshold, by cross-validation: the threshold is
    # chosen on four fifths of the pairs and measured on the rest.
    precision: float
    recall: float  # share of the matches that are at or above it, likewise
    pairs: int  # number of labeled pairs

    def probability(self, score: float) -> float:
        """Return the probability that a pair of this cosine is a match."""
        return 1 / (1 + math.exp(-max(-700.0, min(700.0, self.slope * score + self.intercept))))


@dataclass(frozen=True)
class Calibration:
    """What a cosine means on one index."""

    quantiles: tuple[float, ...]  # cosines of random pairs of rows at equal steps from 0 to 100 %
    pairs: int  # number of random pairs
    match: Match | None = None  # fitted on labeled pairs, if there were any

    def percentile(self, score: float) -> float:
        """Return the share of random pairs with a lower cosine, in percent."""
        return float(np.interp(score, self.quantiles, np.linspace(0, 100, len(self.quantiles))))

    def describe(self, score: float) -> dict[str, float]:
        """Return percentile, and probability if it was fitted."""
        found = {"percentile": round(self.percentile(score), 2)}
        return (
            found if self.match is None else {**found, "probability": self.match.probability(score)}
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Return the calibration that `to_json` gave.

        Raises:
            ArtifactError: the values are something else.
        """
        try:
            match = None if stored["match"] is None else Match(**stored["match"])
            return cls(tuple(map(float, stored["quantiles"])), int(stored["pairs"]), match)
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the index's calibration is damaged: {error!r}") from error


def calibrate_index(index: VectorIndex, *, pairs: int = PAIRS, seed: int = 0) -> Calibration:
    """Measure the cosines of random pairs of different rows, of a large index's random rows.

    Raises:
        DataError: the index has fewer than two rows.
    """
    _, vectors = index.sample(ROWS, seed=seed)  # (P, D)
    rows = len(vectors)
    if rows < 2:
        raise DataError(f"calibration needs at least two rows, the index has {rows}")
    random = np.random.default_rng(seed)
    first = random.integers(0, rows, pairs)
    second = (first + random.integers(1, rows, pairs)) % rows  # never the row itself
    scores = np.empty(pairs)
    for start in range(0, pairs, 4096):
        part = slice(start, start + 4096)
        scores[part] = np.einsum("pd,pd->p", vectors[first[part]], vectors[second[part]])
    quantiles = np.quantile(scores, np.linspace(0, 1, QUANTILES))
    return Calibration(tuple(quantiles.round(6).tolist()), pairs)


def fit_match(scores: ArrayLike, labels: ArrayLike, *, precision: float | None = None) -> Match:
    """Fit probability and threshold on cosines (N,) of labeled pairs (N,), 1 for a match.

    The threshold is the lowest with the wanted ``precision``, or without one that of the best F1.

    Raises:
        DataError: there are fewer than 10 pairs of either kind, or labels other than 0 and 1.
        UsageError: the precision is not in (0, 1], or no threshold reaches it.
    """
    cosines = np.asarray(scores, np.float64)
    truth = np.asarray(labels, np.float64)
    if precision is not None and not 0 < precision <= 1:
        raise UsageError(f"precision must be in (0, 1], got {precision}")
    if cosines.shape != truth.shape or not np.isin(truth, (0, 1)).all():
        raise DataError("labels must be 0 or 1, one for each pair")
    if min(truth.sum(), (1 - truth).sum()) < LEAST:
        got = f"{int(truth.sum())} matches among {len(truth)}"
        raise DataError(f"calibration needs {LEAST} matches and {LEAST} others, got {got}")
    slope, intercept = _logistic(cosines, truth)
    threshold = _threshold(cosines, truth, precision)
    found = _cross_validate(cosines, truth, precision)
    return Match(slope, intercept, threshold, *found, pairs=len(truth))


def _logistic(scores: Floats, labels: Floats) -> tuple[float, float]:
    """Fit a logistic curve by Newton's method, with Platt's smoothed targets."""
    matches, others = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (matches + 1) / (matches + 2), 1 / (others + 2))
    design = np.stack([scores, np.ones_like(scores)], axis=1)  # (N, 2)
    weights = np.array([0.0, math.log((matches + 1) / (others + 1))])
    for _ in range(100):
        loss, step = _newton(design, targets, weights)
        scale = 1.0
        while _loss(design, targets, weights - scale * step) > loss and scale > 1e-10:
            scale /= 2
        weights = weights - scale * step
        if np.abs(scale * step).max() < 1e-10:
            break
    return float(weights[0]), float(weights[1])


def _newton(design: Floats, targets: Floats, weights: Floats) -> tuple[float, Floats]:
    chances = 1 / (1 + np.exp(-np.clip(design @ weights, -700, 700)))
    gradient = design.T @ (chances - targets)
    hessian = (design * (chances * (1 - chances))[:, None]).T @ design + 1e-12 * np.eye(2)
    step: Floats = np.linalg.solve(hessian, gradient).astype(np.float64)
    return _loss(design, targets, weights), step


def _loss(design: Floats, targets: Floats, weights: Floats) -> float:
    logits = design @ weights
    return float((np.logaddexp(0, logits) - targets * logits).sum())


def _threshold(scores: Floats, labels: Floats, precision: float | None) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(labels[order])
    taken = np.arange(1, len(order) + 1)
    ends = np.append(np.diff(scores[order]) < 0, True)  # a threshold takes all pairs that tie
    if precision is None:
        quality = np.where(ends, 2 * hits / (taken + labels.sum()), -1)
        return float(scores[order][np.argmax(quality)])
    good = np.flatnonzero(ends & (hits / taken >= precision))
    if not len(good):
        best = float((hits / taken)[ends].max())
        raise UsageError(f"no threshold has the precision {precision}; the best is {best:.3f}")
    return float(scores[order][good[-1]])


def _cross_validate(scores: Floats, labels: Floats, precision: float | None) -> tuple[float, float]:
    """Return precision and recall of thresholds on pairs they were not chosen on."""
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    taken = np.zeros(len(labels), bool)
    for held in range(FOLDS):
        rest = fold != held
        taken[~rest] = scores[~rest] >= _threshold(scores[rest], labels[rest], precision)
    hits = float(labels[taken].sum())
    return hits / max(1, int(taken.sum())), hits / float(labels.sum())

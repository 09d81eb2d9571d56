"""What is measured of a model: it looks for the body of each held-out summary line."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from simcse.evaluate import Encode
from simcse.evaluate.geometry import alignment, uniformity
from simcse.evaluate.retrieval import retrieval
from simcse.evaluate.vectors import Floats, cosine, unit
from simcse.quickstart.prose import Pair, Sentence

RECALL_AT = 10
RESAMPLES, INTERVAL = 2_000, (2.5, 97.5)  # bootstrap; percent


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """One model on held-out docstrings.

    Attributes:
        reciprocal_ranks: (N,) 1 / rank of each summary's own body among all bodies.
        recall: share of summaries whose body is among the first `RECALL_AT`.
        alignment: of summary and body; lower is better.
        uniformity: of all summaries and bodies; lower is better.
        positive_cosines: (N,) of each summary and its own body.
        random_cosines: (N,) of each summary and another's body.
    """

    reciprocal_ranks: Floats
    recall: float
    alignment: float
    uniformity: float
    positive_cosines: Floats
    random_cosines: Floats

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank, from 0 to 1."""
        return float(self.reciprocal_ranks.mean())

    @property
    def numbers(self) -> dict[str, float]:
        """The four measures by name."""
        return {
            "mrr": self.mrr,
            "recall": self.recall,
            "alignment": self.alignment,
            "uniformity": self.uniformity,
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference in MRR and its 95 % interval over queries."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A sentence found, and its cosine to the question."""

    sentence: Sentence
    cosine: float


def measure(encode: Encode, pairs: Sequence[Pair]) -> Measures:
    """Measure an encoder on held-out pairs.

    Raises:
        NumericError: an embedding holds NaN or infinity.
    """
    summaries = encode([pair.summary for pair in pairs])  # (N, D)
    bodies = encode([pair.body for pair in pairs])  # (N, D)
    found = [
        retrieval(summary[None], bodies, [row], k=RECALL_AT)
        for row, summary in enumerate(summaries)
    ]
    return Measures(
        reciprocal_ranks=np.array([result.mrr for result in found]),
        recall=float(np.mean([result.recall for result in found])),
        alignment=alignment(summaries, bodies),
        uniformity=uniformity(np.concatenate([summaries, bodies])),
        positive_cosines=cosine(summaries, bodies),
        random_cosines=cosine(summaries, np.roll(bodies, 1, axis=0)),
    )


def mrr_difference(before: Measures, after: Measures, *, seed: int) -> Difference:
    """Return how MRR changed, with the bootstrap's 95 % interval over the same queries."""
    changes = after.reciprocal_ranks - before.reciprocal_ranks  # (N,)
    drawn = np.random.default_rng(seed).integers(len(changes), size=(RESAMPLES, len(changes)))
    low, high = np.percentile(changes[drawn].mean(axis=1), INTERVAL)
    return Difference(float(changes.mean()), float(low), float(high))


def verdict(change: Difference) -> str:
    """Say in words whether retrieval became better or worse; neither if 0 is in the interval.

    Example:
        >>> verdict(Difference(0.03, 0.01, 0.05))
        'better, MRR +0.030 (95 % interval +0.010 to +0.050).'
    """
    mean, low, high = (round(x, 3) + 0.0 for x in (change.mean, change.low, change.high))
    word = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return f"{word}, MRR {mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."


def search(
    encode: Encode, vectors: np.ndarray, sentences: Sequence[Sentence], question: str, *, count: int
) -> list[Hit]:
    """Return the ``count`` sentences nearest to a question: vectors (N, D), best first."""
    cosines = unit(vectors) @ unit(encode([question]))[0]  # (N,)
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return [Hit(sentences[row], float(cosines[row])) for row in nearest]

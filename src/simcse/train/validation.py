"""What a run looks at to choose its best checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simcse.evaluate.geometry import mean_cosine, measure_geometry
from simcse.evaluate.spectrum import effective_rank
from simcse.evaluate.sts import embed_task, score_sts
from simcse.io.benchmarks import StsTask
from simcse.model.encoder import SentenceEncoder

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Validation:
    """One look at the model.

    Attributes:
        score: what the best checkpoint is chosen by, higher is better; ``None`` is never best.
        metrics: everything measured, by name.
        latest: there is nothing to choose by, the last look is the one to keep.
    """

    score: float | None
    metrics: Metrics
    latest: bool = False


Validate = Callable[[SentenceEncoder], Validation]


def sts_validation(task: StsTask, *, name: str = "stsb_dev") -> Validate:
    """Validate on one STS task: Spearman chooses, the geometry of the space is watched.

    Only the sentences of the pairs that are scored are encoded, each once.
    """

    def validate(encoder: SentenceEncoder) -> Validation:
        embedded = embed_task(encoder.encode, task)
        spearman = score_sts(embedded).spearman()
        geometry = measure_geometry(embedded)
        return Validation(
            spearman,
            {
                name: spearman,
                "alignment": geometry.alignment,
                "uniformity": geometry.uniformity,
                "mean_cosine": mean_cosine(embedded.vectors),
                "effective_rank": effective_rank(embedded.vectors),
            },
        )

    return validate


def first_of(validations: Sequence[Validate]) -> Validate:
    """Validate by the first, and watch what the others measure under names of their own."""

    def validate(encoder: SentenceEncoder) -> Validation:
        first, *others = (look(encoder) for look in validations)
        watched = {name: value for other in others for name, value in other.metrics.items()}
        # in the order of the sets; of two with one name the first set's
        return Validation(first.score, first.metrics | watched | first.metrics)

    return validate

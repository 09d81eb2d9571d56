"""Dev evaluations that choose the best checkpoint: rated pairs, held-out rows, or none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from simcse.errors import UsageError
from simcse.evaluate.geometry import alignment, mean_cosine, score_geometry, uniformity
from simcse.evaluate.spectrum import effective_rank
from simcse.evaluate.sts import embed_task, score_sts
from simcse.io.benchmarks import StsTask
from simcse.io.records import Example
from simcse.losses.settings import LossConfig
from simcse.model.encoder import SentenceEncoder
from simcse.train.events import DevMetrics
from simcse.train.objective import Objective

LARGEST_EXPONENT = 700.0  # math.exp of more overflows
CHECKED = 64  # rows of the collapse check: encoding them takes a fraction of a step


@dataclass(frozen=True)
class Validation:
    """Outcome of one dev evaluation."""

    score: float | None  # chooses the best checkpoint, higher is better; None is never the best
    metrics: DevMetrics
    latest: bool = False  # without a score to choose by, the last checkpoint is the best


Validate = Callable[[SentenceEncoder], Validation]


def sts_validation(task: StsTask, *, name: str = "stsb_dev") -> Validate:
    """Validate on one STS task: Spearman is the score, the geometry of the space is recorded.

    Only the sentences of rated pairs are encoded, each once.
    """

    def validate(encoder: SentenceEncoder) -> Validation:
        embedded = embed_task(encoder.encode, task)
        spearman = score_sts(embedded).spearman()
        geometry = score_geometry(embedded)
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


def heldout_validation(rows: Sequence[Example], config: LossConfig, *, batch_size: int) -> Validate:
    """Validate by the contrastive loss of held-out rows, computed as in training.

    Every evaluation uses the same batches and dropout masks. If only the MLM term is trained,
    its loss is used instead (`mlm_validation`).
    """
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    if config.contrastive_weight == 0:
        return mlm_validation(batches, config)
    batches = [batch for batch in batches if len(batch) > 1]

    def validate(encoder: SentenceEncoder) -> Validation:
        torch.manual_seed(0)  # for a backbone whose dropout does not use our generator
        objective = Objective(encoder.train(), config)
        losses = [objective.heldout_loss(batch, i) * len(batch) for i, batch in enumerate(batches)]
        encoder.eval()
        loss = sum(losses) / sum(map(len, batches))
        return Validation(-loss, {"heldout_loss": loss, **_geometry(encoder, rows)})

    return validate


def mlm_validation(batches: Sequence[Sequence[Example]], config: LossConfig) -> Validate:
    """Validate by the mean MLM loss of masked tokens, without dropout and with fixed masks."""

    def validate(encoder: SentenceEncoder) -> Validation:
        if encoder.mlm_head is None:
            raise UsageError("the masked-language-model loss needs an encoder with an MLM head")
        objective, head = Objective(encoder, config), encoder.mlm_head
        measured = [objective.heldout_mlm_loss(batch, head, i) for i, batch in enumerate(batches)]
        loss = sum(total for total, _ in measured) / max(1, sum(count for _, count in measured))
        perplexity = math.exp(min(loss, LARGEST_EXPONENT))
        return Validation(-loss, {"heldout_mlm_loss": loss, "perplexity": perplexity})

    return validate


def collapse_check(examples: Sequence[Example]) -> Validate:
    """Measure the geometry of the first training rows, so that a collapse is detected.

    It takes the place of a dev set, and gives no score: the last checkpoint is the best.
    """
    rows = list({row.anchor: row for row in examples[:CHECKED]}.values())

    def validate(encoder: SentenceEncoder) -> Validation:
        return Validation(None, _geometry(encoder, rows) if len(rows) > 1 else {}, latest=True)

    return validate


def first_of(validations: Sequence[Validate]) -> Validate:
    """Take the score of the first validation, and record the metrics of all."""

    def validate(encoder: SentenceEncoder) -> Validation:
        first, *others = (evaluate(encoder) for evaluate in validations)
        recorded = {name: value for other in others for name, value in other.metrics.items()}
        # Metrics keep the order of the sets; where two have one name, the first set's counts.
        return Validation(first.score, first.metrics | recorded | first.metrics)

    return validate


def _geometry(encoder: SentenceEncoder, rows: Sequence[Example]) -> DevMetrics:
    """Measure the embeddings of rows; without positives there is no alignment."""
    anchors = encoder.encode([row.anchor for row in rows], truncation="truncate")  # (N, D)
    metrics: DevMetrics = {"uniformity": uniformity(anchors), "mean_cosine": mean_cosine(anchors)}
    paired = [(i, row.positive) for i, row in enumerate(rows) if row.positive is not None]
    if paired:
        numbers, positives = zip(*paired, strict=True)
        others = encoder.encode(positives, truncation="truncate")
        metrics = {"alignment": alignment(anchors[list(numbers)], others), **metrics}
    return metrics

"""Looking at a run without rated pairs: the loss on held-out rows, or the geometry of a few."""

import math
from collections.abc import Sequence

import torch

from simcse.errors import DataError, UsageError
from simcse.evaluate.geometry import alignment, mean_cosine, uniformity
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.encoder import SentenceEncoder
from simcse.train.objective import Objective
from simcse.train.order import step_seed
from simcse.train.validation import Metrics, Validate, Validation

SHARE = 10  # at most one row in so many
LARGEST = 700.0  # whose exponential is still a number
GLANCED = 64  # rows whose geometry is watched where there is nothing else: a fraction of a step


def hold_out(
    examples: Sequence[Example], count: int, *, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split rows into those to train on and ``count``, at most a tenth, to look at.

    A sentence that is held out is not trained on in another row: such rows are dropped.

    Raises:
        DataError: a tenth of the rows is fewer than two.
    """
    count = min(count, len(examples) // SHARE)
    if count < 2:
        raise DataError(f"eval.dev=heldout needs at least {2 * SHARE} rows, got {len(examples)}")
    generator = torch.Generator().manual_seed(step_seed(seed, 0))
    chosen = set(torch.randperm(len(examples), generator=generator)[:count].tolist())
    held = [examples[i] for i in sorted(chosen)]
    known = {text for row in held for text in (row.anchor, row.positive) if text is not None}
    rest = [
        row
        for i, row in enumerate(examples)
        if i not in chosen and row.anchor not in known and row.positive not in known
    ]
    return rest, held


def heldout_validation(rows: Sequence[Example], config: LossConfig, *, batch_size: int) -> Validate:
    """Validate by the contrastive loss of held-out rows, as they would be trained on.

    Where the MLM term alone is trained, by that: see `mlm_validation`.

    Every look sees the same batches under the same dropout masks. Geometry is watched: a look
    that collapsed is never the best, whatever its loss.
    """
    batches = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    if config.contrastive_weight == 0:
        return mlm_validation(batches, config)
    batches = [batch for batch in batches if len(batch) > 1]

    def validate(encoder: SentenceEncoder) -> Validation:
        torch.manual_seed(0)  # for a dropout of the backbone's that does not draw from its noise
        objective = Objective(encoder.train(), config)
        losses = [objective.measure(batch, i) * len(batch) for i, batch in enumerate(batches)]
        encoder.eval()
        loss = sum(losses) / sum(map(len, batches))
        return Validation(-loss, {"heldout_loss": loss, **_geometry(encoder, rows)})

    return validate


def mlm_validation(batches: Sequence[Sequence[Example]], config: LossConfig) -> Validate:
    """Validate by the masked-language-model loss without dropout: the mean over masked tokens.

    Every look masks the same tokens.
    """

    def validate(encoder: SentenceEncoder) -> Validation:
        if encoder.mlm_head is None:
            raise UsageError("the loss on masked words needs an encoder with an MLM head")
        objective, head = Objective(encoder, config), encoder.mlm_head
        measured = [objective.measure_mlm(batch, head, i) for i, batch in enumerate(batches)]
        loss = sum(total for total, _ in measured) / max(1, sum(count for _, count in measured))
        perplexity = math.exp(min(loss, LARGEST))
        return Validation(-loss, {"heldout_mlm_loss": loss, "perplexity": perplexity})

    return validate


def glance(examples: Sequence[Example]) -> Validate:
    """Watch the geometry of the first training rows, so that a collapse is seen without a dev set.

    There is nothing to choose by: the last look is the one to keep.
    """
    rows = list({row.anchor: row for row in examples[:GLANCED]}.values())

    def validate(encoder: SentenceEncoder) -> Validation:
        return Validation(None, _geometry(encoder, rows) if len(rows) > 1 else {}, latest=True)

    return validate


def _geometry(encoder: SentenceEncoder, rows: Sequence[Example]) -> Metrics:
    """Measure the sentences of rows; without positives there is no alignment."""
    anchors = encoder.encode([row.anchor for row in rows], truncation="truncate")  # (N, D)
    measured: Metrics = {"uniformity": uniformity(anchors), "mean_cosine": mean_cosine(anchors)}
    paired = [(i, row.positive) for i, row in enumerate(rows) if row.positive is not None]
    if paired:
        places, positives = zip(*paired, strict=True)
        others = encoder.encode(positives, truncation="truncate")
        measured = {"alignment": alignment(anchors[list(places)], others), **measured}
    return measured

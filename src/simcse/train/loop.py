"""The training loop: one explicit pass over batches, watched by a validation."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from simcse.errors import DataError, NumericError
from simcse.io.examples import Example
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead
from simcse.model.precision import DTYPES, choose_precision
from simcse.text import Tokenizer
from simcse.train.objective import Objective
from simcse.train.optim import OptimConfig, Optimizer, learning_rate
from simcse.train.order import batch_order
from simcse.train.settings import TrainConfig
from simcse.train.validation import Metrics, Validate, Validation, no_validation

Event = Mapping[str, Any]


@dataclass(frozen=True)
class TrainReport:
    """What a run came to.

    Attributes:
        steps: updates applied.
        seconds: wall-clock time, evaluations included.
        start: metrics before the first step.
        best: metrics of the best checkpoint; the last one's where nothing was validated.
        best_step: the step it was taken after.
        last: metrics after the last step.
        seen: sentences tokenised for training.
        truncated: how many of them were cut to the length limit.
    """

    steps: int
    seconds: float
    start: Metrics
    best: Metrics
    best_step: int
    last: Metrics
    seen: int
    truncated: int


def fit(
    encoder: SentenceEncoder,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    validate: Validate = no_validation,
    observe: Callable[[Event], None] = lambda event: None,
    keep: Callable[[SentenceEncoder, bool], None] = lambda encoder, best: None,
    mlm_head: MlmHead | None = None,
) -> TrainReport:
    """Train ``encoder`` in place and leave it with the last weights, in fp32.

    Args:
        encoder: the start model.
        examples: training rows.
        config: all settings; those of the ``model`` and ``data`` sections are already applied.
        validate: looks at the model before the first step, every ``eval.every`` and at the last.
        observe: is told of every step and every look.
        keep: saves the model after every look; its second argument says whether it is the best.
        mlm_head: for the MLM term; a new one is made where it is needed and none is given.

    Raises:
        DataError: there are too few rows for one step.
        NumericError: a loss or gradient is not finite; that update was not applied.
    """
    torch.manual_seed(config.seed)
    keep_single = any(example.negatives for example in examples)
    steps = count_steps(len(examples), config.optim, keep_single=keep_single)
    batches = batch_order(
        len(examples),
        config.optim.batch_size,
        seed=config.seed,
        steps=steps,
        keep_single=keep_single,
    )
    stepper = Stepper(encoder, config, steps, mlm_head)
    watch = _Watch(encoder, stepper.optimizer, validate, observe, keep)
    observe({"event": "start", "steps": steps, "rows": len(examples)})
    step = 0
    try:
        watch.look(step)
        for step, rows in enumerate(batches, 1):
            observe(stepper.update(step, [examples[i] for i in rows]))
            if step % config.eval.every == 0 or step == steps:
                watch.look(step)
                if watch.since_best == config.eval.patience:
                    break
    except KeyboardInterrupt:
        watch.keep_now()
        raise
    finally:
        stepper.finish()
    return watch.report(step, stepper.objective.tokenizer)


def count_steps(rows: int, config: OptimConfig, *, keep_single: bool = False) -> int:
    """Count the steps of a run over ``rows`` examples.

    Raises:
        DataError: there are too few rows for one step.
    """
    a_pass = [range(i, min(i + config.batch_size, rows)) for i in range(0, rows, config.batch_size)]
    per_epoch = len(a_pass) - (bool(a_pass) and len(a_pass[-1]) == 1 and not keep_single)
    if per_epoch == 0:
        raise DataError(f"training needs at least 2 rows, got {rows}")
    steps = max(1, round(per_epoch * config.epochs))
    return min(steps, config.max_steps or steps)


class Stepper:
    """One update: loss of a batch, gradients, AdamW."""

    def __init__(
        self, encoder: SentenceEncoder, config: TrainConfig, steps: int, mlm_head: MlmHead | None
    ) -> None:
        self.config, self.steps, self.encoder = config, steps, encoder
        if config.loss.mlm_weight > 0 and mlm_head is None:
            mlm_head = MlmHead(encoder.backbone)
        encoder.backbone.set_dropout(config.model.dropout)
        self.objective = Objective(
            encoder,
            config.loss,
            seed=config.seed,
            chunk_tokens=config.optim.chunk_tokens,
            mlm_head=mlm_head,
        )
        self.objective.to(encoder.device)
        precision = choose_precision(config.precision, encoder.device)
        masters = precision != "fp32"  # taken from the fp32 weights before they are rounded
        self.optimizer = Optimizer(self.objective.parameters(), config.optim, masters=masters)
        encoder.set_precision(precision)
        if mlm_head is not None:
            mlm_head.to(DTYPES[precision])

    def update(self, step: int, rows: Sequence[Example]) -> Event:
        """Take step ``step`` (from 1) on a batch and say what happened."""
        started = time.perf_counter()
        sentences = sum(2 + len(row.negatives) for row in rows)
        self.encoder.train()
        loss = self.objective.backward(rows, step, collect=self.optimizer.collect)
        norm = self.optimizer.gradient_norm()
        if not math.isfinite(loss.total.item() + norm):
            raise NumericError(
                f"step {step}: loss {loss.total.item()}, gradient norm {norm}; the update was not "
                f"applied. The batch begins with: {rows[0].anchor[:80]!r}"
            )
        lr = learning_rate(self.config.optim, step - 1, self.steps)
        self.optimizer.step(lr)
        return {
            "event": "step",
            "step": step,
            "loss": loss.total.item(),
            "contrastive": loss.contrastive.item(),
            "mlm": loss.mlm.item(),
            "gradient_norm": norm,
            "lr": lr,
            "sentences": sentences,
            "seconds": time.perf_counter() - started,
        }

    def finish(self) -> None:
        """Leave the last weights in fp32, ready to encode."""
        self.encoder.set_precision("fp32")
        if self.objective.mlm_head is not None:
            self.objective.mlm_head.float()
        self.optimizer.copy_masters()
        self.encoder.eval()


class _Watch:
    """Looks at the model, and knows the best look so far."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        optimizer: Optimizer,
        validate: Validate,
        observe: Callable[[Event], None],
        keep: Callable[[SentenceEncoder, bool], None],
    ) -> None:
        self.encoder, self.optimizer = encoder, optimizer
        self.validate, self.observe, self.keep = validate, observe, keep
        self.started = time.perf_counter()
        self.looks: list[tuple[int, Validation]] = []
        self.best: int | None = None  # index into looks
        self.since_best = 0

    def look(self, step: int) -> None:
        """Validate, tell, and keep the model; the start model is the first that can be best."""
        self.encoder.eval()
        seen = self.validate(self.encoder)
        self.looks.append((step, seen))
        better = self.validate is no_validation or _higher(seen.score, self.best_score)
        self.best = len(self.looks) - 1 if better else self.best
        self.since_best = 0 if better or step == 0 else self.since_best + 1
        self.observe({"event": "eval", "step": step, "best": better, **seen.metrics})
        self.keep_now(best=better)

    def keep_now(self, *, best: bool = False) -> None:
        """Hand the model to be saved, with its fp32 weights."""
        with self.optimizer.masters_in_place():
            self.keep(self.encoder, best)

    @property
    def best_score(self) -> float | None:
        """Score of the best look; ``None`` if no look had one."""
        return None if self.best is None else self.looks[self.best][1].score

    def report(self, steps: int, tokenizer: Tokenizer) -> TrainReport:
        """Sum the run up."""
        best_step, best = self.looks[-1 if self.best is None else self.best]
        return TrainReport(
            steps=steps,
            seconds=time.perf_counter() - self.started,
            start=self.looks[0][1].metrics,
            best=best.metrics,
            best_step=best_step,
            last=self.looks[-1][1].metrics,
            seen=tokenizer.seen,
            truncated=tokenizer.truncated,
        )


def _higher(score: float | None, best: float | None) -> bool:
    """Whether a score beats the best one; an undefined one never does."""
    return score is not None and not math.isnan(score) and (best is None or score > best)

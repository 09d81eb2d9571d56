"""The training loop: one explicit pass over batches, watched by a validation."""

import copy
import itertools
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from simcse.errors import DataError, NumericError, StoppedError
from simcse.io.records import Example
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead
from simcse.model.precision import DTYPES, choose_precision
from simcse.train.classifier import PairClassifier
from simcse.train.evaluator import Event, TrainReport, Watch
from simcse.train.guard import Guard, name_rows
from simcse.train.heldout import glance
from simcse.train.objective import Objective, refuse_unfit
from simcse.train.optim import OptimConfig, Optimizer, learning_rate
from simcse.train.order import batch_order, step_seed
from simcse.train.processes import ALONE, Processes
from simcse.train.queue import MomentumQueue
from simcse.train.settings import TrainConfig
from simcse.train.state import TrainState
from simcse.train.validation import Validate

BEST = "best."  # before the names of the weights that a rollback returns to
QUEUE = "queue."  # before those of what is in the queue


def fit(
    encoder: SentenceEncoder,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    validate: Validate | None = None,
    observe: Callable[[Event], None] = lambda event: None,
    keep: Callable[[SentenceEncoder, bool], None] = lambda encoder, best: None,
    mlm_head: MlmHead | None = None,
    state: TrainState | None = None,
    save: Callable[[TrainState], None] = lambda state: None,
    stop: Callable[[], int | None] = lambda: None,
    processes: Processes = ALONE,
) -> TrainReport:
    """Train ``encoder`` in place and leave it with the last weights, in fp32.

    Args:
        encoder: the start model.
        examples: training rows.
        config: all settings; those of the ``model`` and ``data`` sections are already applied.
        validate: looks at the model before the first step, every ``eval.every`` and at the last;
            by default it only watches that the embeddings do not collapse.
        observe: is told of every step and every look.
        keep: saves the model after every look; its second argument says whether it is the best.
        mlm_head: for the MLM term; a new one is made where it is needed and none is given.
        state: a checkpoint of this very run, to go on from.
        save: stores a checkpoint every ``train.checkpoint_every`` steps.
        stop: gives the number of the signal that asks the run to stop, else ``None``.
        processes: those that train together; only the first calls ``validate``.

    Raises:
        DataError: there are too few rows for one step.
        NumericError: a loss or gradient is not finite or the gradient exploded, and that update
            was not applied; or the embeddings collapsed.
        StoppedError: ``stop`` asked for it, and a checkpoint was saved.
    """
    torch.manual_seed(config.seed)
    refuse_unfit(examples, config.loss)
    keep_single = any(example.negatives for example in examples)
    steps = count_steps(len(examples), config.optim, keep_single=keep_single)
    batches = batch_order(
        len(examples),
        config.optim.batch_size,
        seed=config.seed,
        steps=steps,
        keep_single=keep_single,
    )
    stepper = Stepper(
        encoder, config, steps, mlm_head, processes, labels={row.label for row in examples}
    )
    watch = Watch(
        encoder, stepper.optimizer, validate or glance(examples), observe, keep, processes
    )
    run = _Run(stepper, watch, config, save)
    step = 0 if state is None else state.step
    try:
        if state is None:
            observe({"event": "start", "steps": steps, "rows": len(examples)})
            run.look(step)
        else:
            run.load(state)
            observe({"event": "resume", "steps": steps, "step": step})
        for rows in itertools.islice(batches, step, None):
            run.stop_if(processes.largest(stop() or 0), step)
            step += 1
            run.update(step, [examples[i] for i in rows])
            if (step % config.eval.every == 0 or step == steps) and not run.look(step):
                break
            if step % config.train.checkpoint_every == 0:
                run.checkpoint(step)
    except (KeyboardInterrupt, NumericError):
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
    """One update: loss of a batch, gradients, AdamW; a bad one is not applied."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        config: TrainConfig,
        steps: int,
        mlm_head: MlmHead | None,
        processes: Processes = ALONE,
        *,
        labels: Collection[str] = (),
    ) -> None:
        self.config, self.steps, self.encoder, self.processes = config, steps, encoder, processes
        self.guard = Guard()
        encoder.backbone.set_dropout(config.model.dropout)
        needs_head = config.loss.mlm_weight > 0 and mlm_head is None
        classifies = config.loss.form == "classifier"
        self.objective = Objective(
            encoder,
            config.loss,
            seed=config.seed,
            micro_batch_tokens=config.optim.micro_batch_tokens,
            mlm_head=MlmHead(encoder.backbone) if needs_head else mlm_head,
            second=copy.deepcopy(encoder) if config.model.num_encoders == 2 else None,
            classifier=PairClassifier(encoder.dimensions, labels) if classifies else None,
            queue=MomentumQueue(encoder, config.loss.queue) if config.loss.queue else None,
            processes=processes,
        )
        self.objective.to(encoder.device)
        width = encoder.backbone.width
        precision = choose_precision(config.precision, encoder.device, width=width)
        masters = precision != "fp32"  # taken from the fp32 weights before they are rounded
        self.optimizer = Optimizer(
            self.objective.parameters(), config.optim, masters=masters, processes=processes
        )
        for each in self.objective.encoders:
            each.set_precision(precision)
        if self.objective.mlm_head is not None:
            self.objective.mlm_head.to(DTYPES[precision])

    def update(self, step: int, rows: Sequence[Example]) -> Event:
        """Take step ``step`` (from 1) on a batch and say what happened.

        Raises:
            NumericError: the update is bad.
        """
        started = time.perf_counter()
        sentences = len(rows)
        if self.config.loss.contrastive_weight > 0:
            sentences = sum(2 + len(row.negatives) for row in rows)
        tokens = self.objective.tokenizer.tokens
        torch.manual_seed(step_seed(self.config.seed, step, self.processes.rank))
        self.objective.train()
        loss = self.objective.backward(rows, step, collect=self.optimizer.collect)
        norm = self.optimizer.gradient_norm()
        problem = self.guard.bad_update(loss.total.item(), norm, self.config.guard)
        if problem:
            self.optimizer.forget()
            raise NumericError(
                f"step {step}: {problem}; the update was not applied. {name_rows(rows)}"
            )
        lr = learning_rate(self.config.optim, step - 1, self.steps) / 2**self.guard.rollbacks
        self.optimizer.step(lr)
        if self.objective.queue is not None:
            slow, fast = self.objective.queue.encoder, self.encoder
            self.optimizer.follow(
                slow.parameters(), fast.parameters(), momentum=self.config.loss.momentum
            )
        return {
            "event": "step",
            "step": step,
            "loss": loss.total.item(),
            "contrastive": loss.contrastive.item(),
            "mlm": loss.mlm.item(),
            "gradient_norm": norm,
            "lr": lr,
            "sentences": sentences,
            "tokens": self.processes.total(self.objective.tokenizer.tokens - tokens),
            "seconds": time.perf_counter() - started,
        }

    def finish(self) -> None:
        """Leave the last weights in fp32, ready to encode."""
        self.encoder.set_precision("fp32")
        if self.objective.mlm_head is not None:
            self.objective.mlm_head.float()
        self.optimizer.copy_masters()
        self.encoder.eval()


class _Run:
    """A stepper and a watch that are written down, taken up again and set back together."""

    def __init__(
        self,
        stepper: Stepper,
        watch: Watch,
        config: TrainConfig,
        save: Callable[[TrainState], None],
    ) -> None:
        self.stepper, self.watch, self.config, self.save = stepper, watch, config, save
        self.queue = stepper.objective.queue
        self.saved: int | None = None
        self.best_weights: dict[str, Tensor] = {}

    def update(self, step: int, rows: Sequence[Example]) -> None:
        """Take one step, or leave it out if it is bad and ``guard.skip`` allows it.

        Raises:
            NumericError: it is bad, and no more may be left out.
        """
        try:
            done = self.stepper.update(step, rows)
        except NumericError as error:
            self.watch.observe({"event": "guard", "step": step, "text": str(error)})
            if self.stepper.guard.skipped == self.config.guard.skip:
                raise
            self.stepper.guard.skipped += 1
        else:
            self.watch.note(done)
            self.watch.observe(done)

    def look(self, step: int) -> bool:
        """Look at the model; say whether the run goes on.

        Raises:
            NumericError: the embeddings collapsed, and the run may not go back.
        """
        if self.watch.look(step) and self.config.guard.rollback:
            state = self.stepper.optimizer.state()
            self.best_weights = {k: v.clone() for k, v in state.items() if k.startswith("weight.")}
        collapsed, patience = self.watch.collapsed, self.config.eval.patience
        if collapsed is None and self.watch.since_best != patience:
            return True
        if step < self.stepper.steps and self._roll_back(
            step, collapsed or f"{patience} looks without a better score"
        ):
            return True
        if collapsed:
            raise NumericError(f"step {step}: {collapsed}")
        return False

    def checkpoint(self, step: int) -> None:
        """Store where the run is, after ``step`` updates."""
        if self.saved != step:
            tensors = dict(self.stepper.optimizer.state())
            tensors |= {BEST + name: tensor for name, tensor in self.best_weights.items()}
            if self.queue is not None:
                tensors |= {QUEUE + name: tensor for name, tensor in self.queue.state().items()}
            tokenizer, total = self.stepper.objective.tokenizer, self.stepper.processes.total
            progress = {
                "guard": asdict(self.stepper.guard),
                "watch": self.watch.state(),
                "tokenizer": {
                    "seen": total(tokenizer.seen),
                    "truncated": total(tokenizer.truncated),
                },
            }
            self.save(TrainState(step, tensors, progress))
            self.saved = step

    def load(self, state: TrainState) -> None:
        """Take over what `checkpoint` stored."""
        queue, others = _parted(state.tensors, QUEUE)
        self.best_weights, own = _parted(others, BEST)
        self.stepper.optimizer.load(own)
        if self.queue is not None:
            self.queue.load(queue)
        self.stepper.guard = Guard(**state.progress["guard"])
        self.watch.load(state.progress["watch"])
        if self.stepper.processes.is_first:  # the counts of all
            vars(self.stepper.objective.tokenizer).update(state.progress["tokenizer"])
        self.saved = state.step

    def stop_if(self, number: int, step: int) -> None:
        """Keep the model, store a checkpoint and leave, if a signal asked for it.

        Raises:
            StoppedError: one did.
        """
        if number:
            self.watch.keep_now()
            self.checkpoint(step)
            name = signal.Signals(number).name
            where = f"{name} after step {step} of {self.stepper.steps}"
            raise StoppedError(
                f"stopped by {where}; a checkpoint is saved, --resume goes on from it", number
            )

    def _roll_back(self, step: int, why: str) -> bool:
        """Go back to the weights of the best look and on at half the rate, if that is allowed."""
        guard, best = self.stepper.guard, self.watch.best
        if guard.rollbacks == self.config.guard.rollback or best is None:
            return False
        guard.rollbacks += 1
        self.stepper.optimizer.load(self.best_weights)
        if self.queue is not None:
            self.queue.clear()
        self.watch.since_best = 0
        text = (
            f"step {step}: {why}; back to the weights of step {self.watch.looks[best][0]}, "
            f"the rate is divided by {2**guard.rollbacks}"
        )
        self.watch.observe({"event": "guard", "step": step, "text": text})
        return True


def _parted(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Part the tensors whose names begin so, which they lose, from the others."""
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return own, {n: t for n, t in tensors.items() if not n.startswith(prefix)}

"""The training loop of SimCSE (Gao et al. 2021, sections 3 and 4): one `Trainer` for all runs."""

import copy
import dataclasses
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from simcse.errors import NumericError, StoppedError, UsageError
from simcse.io.records import Example
from simcse.losses.classifier import ClassifierLoss
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead
from simcse.model.precision import DTYPES, choose_precision
from simcse.train.callbacks import Checkpoints
from simcse.train.evaluator import Evaluator
from simcse.train.events import (
    Callback,
    CheckpointReady,
    Event,
    Finished,
    GuardTripped,
    ModelReady,
    StepDone,
    TrainingResumed,
    TrainingStarted,
    TrainResult,
    Warned,
)
from simcse.train.guard import Guard, describe_rows
from simcse.train.objective import Objective
from simcse.train.optim import Optimizer, learning_rate
from simcse.train.order import batch_order, step_seed
from simcse.train.processes import ALONE, Processes, join_processes
from simcse.train.queue import MomentumQueue
from simcse.train.runtime import stop_signals, torch_runtime
from simcse.train.settings import TrainConfig
from simcse.train.state import TrainState
from simcse.train.training_data import DataSource, TrainingData, load_training_data
from simcse.train.validation import collapse_check

BEST_PREFIX = "best."  # of the names of the weights that a rollback returns to
QUEUE_PREFIX = "queue."  # of the names of the queue's tensors


class Trainer:
    """Trains an encoder in place and leaves it with the last weights, in fp32.

    A run that was stopped or killed continues from its last checkpoint to the same weights, bit
    for bit. Under ``torchrun`` several processes share each batch; only the first one evaluates
    and calls the callbacks.

    Attributes:
        steps: number of steps of the run.
        objective: the loss of a batch, after `setup`.
        optimizer: AdamW, after `setup`.

    Example:
        >>> encoder = SentenceEncoder.load("mini", precision="fp32")
        >>> config = TrainConfig(eval=EvalConfig(dev="none"))
        >>> Trainer(encoder, ["A man eats.", "A dog runs."], config, callbacks=[print]).fit()
        ... # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        data: DataSource,
        config: TrainConfig,
        *,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Check data and settings; nothing is computed yet.

        Args:
            encoder: the start model. Settings of the ``model`` section other than dropout and
                ``num_encoders`` are applied by `simcse.train.run.load_start`.
            data: rows or files, see `simcse.train.run.train`; a `TrainingData` is used as it is.
            config: all settings.
            callbacks: functions that are called with every `Event` of the run.

        Raises:
            DataError: a row is wrong, there are too few, or the dev set is missing.
            ConfigError: the rows do not fit the loss.
        """
        self.encoder, self.config, self.callbacks = encoder, config, tuple(callbacks)
        if not isinstance(data, TrainingData):
            data = load_training_data(data, config)
        data.check(config)
        self.data = data
        self.steps = self.data.count_steps(config)

    def fit(self) -> TrainResult:
        """Train from the first step to the last.

        Raises:
            NumericError: a loss or gradient was not finite, the gradient exploded or the
                embeddings collapsed; the update was not applied.
            StoppedError: SIGTERM or SIGINT was received; a checkpoint was offered to the callbacks.
        """
        return self._run(lambda: None)

    def resume(self) -> TrainResult:
        """Continue from the last checkpoint of the `Checkpoints` callback, if there is one.

        Raises:
            UsageError: there is no such callback.
            ArtifactError: all checkpoints are damaged.
        """
        stores = [each for each in self.callbacks if isinstance(each, Checkpoints)]
        if not stores:
            raise UsageError("Trainer.resume needs a simcse.train.callbacks.Checkpoints callback")
        return self._run(stores[0].load)

    def _run(self, load: Callable[[], TrainState | None]) -> TrainResult:
        with (
            join_processes(self.config.train.timeout) as processes,
            torch_runtime(self.config.train),
            stop_signals() as stop_signal,
        ):
            self.setup(processes)
            try:
                step = self._start(processes.from_first(load))
                for rows in itertools.islice(self._batches(), step, None):
                    self._stop_if(processes.largest(stop_signal()), step)
                    step += 1
                    self._update(step, rows)
                    due = step % self.config.eval.every == 0 or step == self.steps
                    if due and not self._evaluate(step):
                        break
                    if step % self.config.train.checkpoint_every == 0:
                        self._save_checkpoint(step)
            except (KeyboardInterrupt, NumericError):
                self._save_model(self._step)
                raise
            finally:
                self._restore_fp32()
            return self._finish(step)

    def setup(self, processes: Processes = ALONE) -> None:
        """Build the objective and the optimizer; `fit` and `resume` begin with this."""
        self.processes, self._step = processes, 0
        self.guard = Guard()
        self.best_weights: dict[str, Tensor] = {}
        self._saved_step: int | None = None
        torch.manual_seed(self.config.seed)
        self.encoder.backbone.set_dropout(self.config.model.dropout)
        self.objective = self._build_objective()
        self.optimizer = self._build_optimizer()
        validate = self.data.validate or collapse_check(self.data.rows)
        self.evaluator = Evaluator(validate, processes)

    def training_step(self, step: int, rows: Sequence[Example]) -> StepDone:
        """Take step ``step``, from 1: loss of a batch, gradient, AdamW.

        Raises:
            NumericError: the guard refused the update, and it was not applied.
        """
        started = time.perf_counter()
        tokenizer, processes = self.objective.tokenizer, self.processes
        tokens = tokenizer.tokens
        torch.manual_seed(step_seed(self.config.seed, step, processes.rank))
        self.objective.train()
        loss = self.objective.backward(rows, step, collect=self.optimizer.collect)
        norm = self.optimizer.gradient_norm()
        problem = self.guard.find_problem(loss.total.item(), norm, self.config.guard)
        if problem:
            self.optimizer.drop_gradients()
            raise NumericError(
                f"step {step}: {problem}; the update was not applied. {describe_rows(rows)}"
            )
        lr = learning_rate(self.config.optim, step - 1, self.steps) / 2**self.guard.rollbacks
        self.optimizer.step(lr)
        self._move_queue_encoder()
        contrastive = self.config.loss.contrastive_weight > 0
        return StepDone(
            step=step,
            loss=loss.total.item(),
            contrastive=loss.contrastive.item(),
            mlm=loss.mlm.item(),
            gradient_norm=norm,
            lr=lr,
            sentences=sum(2 + len(row.negatives) for row in rows) if contrastive else len(rows),
            tokens=processes.total(tokenizer.tokens - tokens),
            seconds=time.perf_counter() - started,
        )

    def _build_objective(self) -> Objective:
        encoder, config = self.encoder, self.config
        if config.loss.mlm_weight > 0 and encoder.mlm_head is None:
            encoder.mlm_head = MlmHead(encoder.backbone)
        classifies = config.loss.type == "classifier"
        labels = {row.label for row in self.data.rows}
        objective = Objective(
            encoder,
            config.loss,
            seed=config.seed,
            micro_batch_tokens=config.optim.micro_batch_tokens,
            mlm_head=encoder.mlm_head if config.loss.mlm_weight > 0 else None,
            second=copy.deepcopy(encoder) if config.model.num_encoders == 2 else None,
            classifier=ClassifierLoss(encoder.dimensions, labels) if classifies else None,
            queue=MomentumQueue(encoder, config.loss.queue_size)
            if config.loss.queue_size
            else None,
            processes=self.processes,
        )
        return objective.to(encoder.device)

    def _build_optimizer(self) -> Optimizer:
        """Copy the fp32 weights for the optimizer, then round the model's to its precision."""
        backbone, device = self.encoder.backbone, self.encoder.device
        precision = choose_precision(self.config.precision, device, width=backbone.width)
        optimizer = Optimizer(
            self.objective.parameters(),
            self.config.optim,
            masters=precision != "fp32",
            processes=self.processes,
        )
        for each in self.objective.encoders:
            each.set_precision(precision)
        if self.objective.mlm_head is not None:
            self.objective.mlm_head.to(DTYPES[precision])
        return optimizer

    def _batches(self) -> Iterator[list[Example]]:
        order = batch_order(
            len(self.data.rows),
            self.config.optim.batch_size,
            seed=self.config.seed,
            steps=self.steps,
            keep_single=self.data.keep_single,
        )
        return ([self.data.rows[i] for i in numbers] for numbers in order)

    def _start(self, state: TrainState | None) -> int:
        """Evaluate the start model, or restore a checkpoint; return the number of steps done."""
        if state is None:
            self._emit(TrainingStarted(self.steps, len(self.data.rows)))
            self._evaluate(0)
            return 0
        self._restore(state)
        self._emit(TrainingResumed(self.steps, state.step))
        return state.step

    def _update(self, step: int, rows: Sequence[Example]) -> None:
        """Take a step, or skip it if the guard refuses it and ``guard.max_skipped`` allows that."""
        try:
            done = self.training_step(step, rows)
        except NumericError as error:
            self._emit(GuardTripped(step, str(error)))
            if self.guard.skipped == self.config.guard.max_skipped:
                raise
            self.guard.skipped += 1
            self._step = step
        else:
            self._step = step
            self.evaluator.record(done)
            self._emit(done)

    def _evaluate(self, step: int) -> bool:
        """Evaluate the model and save it; return whether the run continues.

        Raises:
            NumericError: the embeddings collapsed, and no rollback is left.
        """
        evaluated, better = self.evaluator.evaluate(self.encoder, step)
        self._emit(evaluated)
        self._save_model(step, best=better, evaluated=True)
        if better and self.config.guard.max_rollbacks:
            state = self.optimizer.state()
            self.best_weights = {k: v.clone() for k, v in state.items() if k.startswith("weight.")}
        collapse, patience = self.evaluator.collapse, self.config.eval.patience
        if collapse is None and self.evaluator.since_best != patience:
            return True
        reason = collapse or f"{patience} evaluations without a better score"
        if step < self.steps and self._roll_back(step, reason):
            return True
        if collapse:
            raise NumericError(f"step {step}: {collapse}")
        return False

    def _roll_back(self, step: int, reason: str) -> bool:
        """Return to the best weights and halve the learning rate, if a rollback is left."""
        if self.guard.rollbacks == self.config.guard.max_rollbacks or self.evaluator.best is None:
            return False
        self.guard.rollbacks += 1
        self.optimizer.load(self.best_weights)
        if self.objective.queue is not None:
            self.objective.queue.clear()
        self.evaluator.since_best = 0
        text = (
            f"step {step}: {reason}; the weights of step {self.evaluator.best_step} are restored, "
            f"and the learning rate is divided by {2**self.guard.rollbacks}"
        )
        self._emit(GuardTripped(step, text))
        return True

    def _stop_if(self, number: int, step: int) -> None:
        """Save the model and a checkpoint and raise, if a signal was received."""
        if number:
            self._save_model(step)
            self._save_checkpoint(step)
            raise StoppedError(
                f"stopped by {signal.Signals(number).name} after step {step} of {self.steps}; a "
                "checkpoint is saved, continue with --resume",
                number,
            )

    def _save_model(self, step: int, *, best: bool = False, evaluated: bool = False) -> None:
        with self.optimizer.masters_in_place():
            self._emit(ModelReady(step, self.encoder, best, evaluated))

    def _save_checkpoint(self, step: int) -> None:
        """Offer the state of the run after ``step`` steps to the callbacks, once."""
        if self._saved_step == step:
            return
        tensors = dict(self.optimizer.state())
        tensors |= {BEST_PREFIX + name: tensor for name, tensor in self.best_weights.items()}
        if (queue := self.objective.queue) is not None:
            tensors |= {QUEUE_PREFIX + name: tensor for name, tensor in queue.state().items()}
        tokenizer, total = self.objective.tokenizer, self.processes.total
        counts = {"seen": total(tokenizer.seen), "truncated": total(tokenizer.truncated)}
        progress = {
            "guard": dataclasses.asdict(self.guard),
            "evaluator": self.evaluator.state(),
            "tokenizer": counts,
        }
        self._emit(CheckpointReady(TrainState(step, tensors, progress)))
        self._saved_step = step

    def _restore(self, state: TrainState) -> None:
        """Restore what `_save_checkpoint` stored."""
        queue, others = _split(state.tensors, QUEUE_PREFIX)
        self.best_weights, weights = _split(others, BEST_PREFIX)
        self.optimizer.load(weights)
        if self.objective.queue is not None:
            self.objective.queue.load(queue)
        self.guard = Guard(**state.progress["guard"])
        self.evaluator.load(state.progress["evaluator"])
        if self.processes.is_first:  # the counts are those of all processes together
            vars(self.objective.tokenizer).update(state.progress["tokenizer"])
        self._saved_step = self._step = state.step

    def _move_queue_encoder(self) -> None:
        """Let the queue's encoder follow the trained one (He et al. 2020, MoCo)."""
        if self.objective.queue is not None:
            self.optimizer.follow(
                self.objective.queue.encoder.parameters(),
                self.encoder.parameters(),
                momentum=self.config.loss.momentum,
            )

    def _restore_fp32(self) -> None:
        """Leave the encoder with its fp32 weights, ready to encode."""
        self.encoder.set_precision("fp32")
        if self.objective.mlm_head is not None:
            self.objective.mlm_head.float()
        self.optimizer.copy_masters()
        self.encoder.eval()

    def _finish(self, steps: int) -> TrainResult:
        """Report the result, and warn if the model became worse."""
        result = self.evaluator.result(steps, self.objective.tokenizer)
        if result.worse:
            name = next(iter(result.start))
            self._emit(
                Warned(
                    f"training made the model worse: {name} was {result.start[name]:.4g} before "
                    f"and is {result.last[name]:.4g} now; the best checkpoint is that of step "
                    f"{result.best_step}"
                )
            )
        counts = self.data.counts
        self._emit(Finished(result, counts.skipped, counts.blank))
        return result

    def _emit(self, event: Event) -> None:
        """Give an event to the callbacks, in the first process only."""
        if self.processes.is_first:
            for callback in self.callbacks:
                callback(event)


def _split(
    tensors: Mapping[str, Tensor], prefix: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate the tensors whose names have a prefix, without it, from the others."""
    own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    return own, {n: t for n, t in tensors.items() if not n.startswith(prefix)}

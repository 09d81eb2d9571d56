"""SentEval's classifier: softmax regression on frozen embeddings, many fits as one product.

SentEval trains one small model after another. Here fits over training sets of the same size run
together: they see their examples in the same order, because SentEval seeds its generator anew for
each, so that a step is one batched matrix product over fits and L2 values, and one step of
``torch.optim`` (1.2 times the time of updates written out by hand, CR on one core).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse.errors import ConfigError, ResourceError
from simcse.evaluate.vectors import Floats

Solver = Literal["adam", "rmsprop", "lbfgs"]
Rows = NDArray[np.intp]
Advance = Callable[[int], None]  # called with the number of fits that have just finished

SEED = 1111  # of the folds, the first weights and the order of examples, as in SentEval
MAX_EPOCHS = 200
HELD_OUT = 0.05  # of the training examples, for early stopping where there is no dev set
GATHERED_CELLS = 1 << 18  # floats of the examples of one step; 1 MB, so that it stays in the cache
LBFGS_ITERATIONS = 1000
OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "rmsprop": partial(torch.optim.RMSprop, foreach=False),
}


@dataclass(frozen=True)
class Protocol:
    """How the classifier is trained; the defaults are SentEval's full protocol."""

    folds: int = 10  # folds of the cross-validation, outer and inner
    # ``adam`` and ``rmsprop`` with torch's default learning rates as SentEval; ``lbfgs`` minimizes
    # the same loss to the end (scikit-learn), which is not SentEval's protocol
    solver: Solver = "adam"
    batch: int = 64  # examples of a step
    # dev evaluations without improvement, over the whole training, before the last
    tenacity: int = 5
    epoch_size: int = 4  # epochs between two dev evaluations

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds must be at least 2, got {self.folds}")
        if min(self.batch, self.tenacity + 1, self.epoch_size) < 1:
            raise ConfigError(f"batch, tenacity and epoch_size must be positive, got {self}")

    @property
    def description(self) -> str:
        """The protocol's name in tables and reports."""
        if self.solver == "lbfgs":
            return f"L-BFGS to convergence, {self.folds} folds (not SentEval's classifier)"
        if self == FULL:
            return "SentEval's full protocol (10 folds, Adam)"
        return "SentEval's fast protocol (5 folds, RMSprop)"


FULL = Protocol()
FAST = Protocol(folds=5, solver="rmsprop", batch=128, tenacity=3, epoch_size=2)


def choose_protocol(*, fast: bool, solver: str) -> Protocol:
    """Return SentEval's fast or full protocol, or its folds with the solver ``lbfgs``."""
    protocol = FAST if fast else FULL
    return replace(protocol, solver="lbfgs") if solver == "lbfgs" else protocol


@dataclass(frozen=True, eq=False)
class Fit:
    """One training set with every L2 value tried on it."""

    train: Rows  # rows of the training examples
    dev: Rows | None  # rows for early stopping; ``None`` holds out `HELD_OUT` of ``train``
    l2: tuple[float, ...]  # (R,) factors of the squared weights, the bias included


@dataclass(frozen=True, eq=False)
class Fitted:
    """The result of a `Fit`."""

    accuracy: Floats  # (R,) on the dev rows, from 0 to 1, at the best dev evaluation
    weights: NDArray[np.float32]  # (R, D + 1, C) at that evaluation; the last row is the bias


def fit_classifiers(
    features: NDArray[np.float32],
    labels: Rows,
    fits: Sequence[Fit],
    protocol: Protocol,
    *,
    advance: Advance = lambda count: None,
) -> list[Fitted]:
    """Train every fit on its rows of features (N, D) and labels (N,) 0..C-1.

    Groups of fits train on all of torch's cores, one each; scores do not depend on their number.

    Raises:
        ResourceError: the solver is ``lbfgs`` and scikit-learn is not installed.
    """
    if protocol.solver == "lbfgs":
        return [_fit_lbfgs(features, labels, fit, advance) for fit in fits]
    ones = np.ones((len(features), 1), np.float32)
    inputs = torch.from_numpy(np.hstack([features, ones]))  # (N, D + 1)
    targets = torch.from_numpy(np.eye(labels.max() + 1, dtype=np.float32)[labels])  # (N, C)
    first = _first_weights(features.shape[1], targets.shape[1])
    group_size = max(1, GATHERED_CELLS // (protocol.batch * inputs.shape[1]))
    groups = [
        group[start : start + group_size]
        for group in _same_size(fits)
        for start in range(0, len(group), group_size)
    ]
    threads, lock, stop = torch.get_num_threads(), threading.Lock(), threading.Event()

    def finished(count: int) -> None:
        if stop.is_set():  # Ctrl-C: the results of the other threads are not needed any more
            raise CancelledError
        with lock:
            advance(count)

    def train(group: list[int]) -> list[Fitted]:
        chosen = [fits[number] for number in group]
        return _FitGroup(inputs, targets, first, chosen, protocol).run(finished)

    results: dict[int, Fitted] = {}
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for group, found in zip(groups, pool.map(train, groups), strict=True):
                results |= zip(group, found, strict=True)
        finally:
            stop.set()
            torch.set_num_threads(threads)  # for threads created later
    return [results[number] for number in range(len(fits))]


def predict(weights: NDArray[np.float32], features: NDArray[np.float32]) -> Rows:
    """Return the most likely class: weights (D + 1, C), features (N, D) -> (N,)."""
    found: Rows = (features @ weights[:-1] + weights[-1]).argmax(axis=1)
    return found


def _same_size(fits: Sequence[Fit]) -> list[list[int]]:
    """Group the numbers of fits whose training and dev sets are equally large."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, fit in enumerate(fits):
        size = (len(fit.train), -1 if fit.dev is None else len(fit.dev), len(fit.l2))
        groups.setdefault(size, []).append(number)
    return list(groups.values())


class _FitGroup:
    """F fits over sets of the same size, each with R values of L2, trained in lockstep.

    A fit whose R values have all stopped is removed from the products.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        first: Tensor,
        fits: Sequence[Fit],
        protocol: Protocol,
    ) -> None:
        self.inputs, self.targets, self.protocol = inputs, targets, protocol
        self.random = np.random.RandomState(SEED)  # SentEval's generator, seeded for each fit
        train = np.stack([fit.train for fit in fits])  # (F, n)
        if fits[0].dev is None:
            order = self.random.permutation(train.shape[1])
            held_out = int(HELD_OUT * train.shape[1])
            train, dev = train[:, order[held_out:]], train[:, order[:held_out]]
        else:
            dev = np.stack([fit.dev for fit in fits if fit.dev is not None])
        self.train, self.dev = torch.from_numpy(train), torch.from_numpy(dev)  # (F, n), (F, m)
        l2 = torch.tensor([fit.l2 for fit in fits], dtype=torch.float32)  # (F, R)
        self.l2 = l2.repeat(1, targets.shape[1]).unsqueeze(2)  # (F, C * R, 1)
        first = first.repeat_interleave(l2.shape[1], dim=0)  # (C, D + 1) -> (C * R, D + 1)
        self.weights = first.repeat(len(fits), 1, 1)  # (F, C * R, D + 1)
        self.optimizer = OPTIMIZERS[protocol.solver]([self.weights])
        self.active = torch.arange(len(fits))  # fits still in training
        self.misses = torch.zeros(l2.shape, dtype=torch.long)  # (F, R)
        self.stopped = torch.zeros(l2.shape, dtype=torch.bool)
        self.best = torch.full(l2.shape, -1, dtype=torch.long)  # correct dev examples
        self.best_weights = self._by_l2(self.weights).clone()  # (F, C, R, D + 1)

    def run(self, finished: Advance) -> list[Fitted]:
        """Train until every fit has stopped."""
        epochs = 0
        while len(self.active) and epochs <= MAX_EPOCHS:
            for _ in range(self.protocol.epoch_size):
                self._epoch()
            epochs += self.protocol.epoch_size
            finished(self._evaluate())
        finished(int((~self.stopped).sum()))  # fits that ended at the limit of epochs
        accuracy = (self.best.double() / max(1, self.dev.shape[1])).numpy()  # (F, R)
        weights = self.best_weights.permute(0, 2, 3, 1).numpy()  # (F, R, D + 1, C)
        return [Fitted(*pair) for pair in zip(accuracy, weights, strict=True)]

    def _epoch(self) -> None:
        order = torch.from_numpy(self.random.permutation(self.train.shape[1]))
        chosen = self.train[:, order]  # (F, n)
        gold = self._gold(chosen)  # (F, C, 1, n)
        size = self.protocol.batch
        batches = zip(torch.split(chosen, size, dim=1), torch.split(gold, size, dim=3), strict=True)
        for rows, truth in batches:
            batch = self._gather(rows)  # (F, B, D + 1)
            logits = torch.bmm(self.weights, batch.transpose(1, 2))  # (F, C * R, B)
            error = self._by_l2(logits).softmax(1)  # (F, C, R, B)
            error -= truth
            error /= rows.shape[1]  # the mean loss, as SentEval's torch computes it
            gradient = torch.bmm(error.view_as(logits), batch)  # (F, C * R, D + 1)
            gradient.addcmul_(self.l2, self.weights)  # coupled decay, bias included, as torch's
            self.weights.grad = gradient
            self.optimizer.step()

    def _evaluate(self) -> int:
        """Score the dev sets, save better weights, and return how many L2 values stopped."""
        logits = torch.bmm(self.weights, self._gather(self.dev).transpose(1, 2))  # (F, C * R, m)
        found = self._by_l2(logits).argmax(1)  # (F, R, m)
        correct = (found == self._gold(self.dev).argmax(1)).sum(2)  # (F, R)
        active = self.active
        running = ~self.stopped[active]
        better = running & (correct > self.best[active])
        missed = running & ~better
        # The counter is never reset, and one miss beyond the tenacity ends it: SentEval's `fit`.
        ended = missed & (self.misses[active] >= self.protocol.tenacity)
        self.best[active] = torch.where(better, correct, self.best[active])
        self.best_weights[active] = torch.where(
            better[:, None, :, None], self._by_l2(self.weights), self.best_weights[active]
        )
        self.misses[active] += missed
        self.stopped[active] |= ended
        self._drop_stopped(~self.stopped[active].all(1))
        return int(ended.sum())

    def _drop_stopped(self, staying: Tensor) -> None:
        if staying.all():
            return
        self.active, self.train, self.dev, self.l2 = (
            rows[staying] for rows in (self.active, self.train, self.dev, self.l2)
        )
        state = self.optimizer.state.pop(self.weights)
        self.weights = self.weights[staying]
        self.optimizer.param_groups[0]["params"] = [self.weights]
        self.optimizer.state[self.weights] = {
            name: value[staying] if value.dim() else value for name, value in state.items()
        }

    def _gather(self, rows: Tensor) -> Tensor:
        """Return the inputs of rows (F, B): (F, B, D + 1)."""
        return self.inputs.index_select(0, rows.flatten()).view(*rows.shape, self.inputs.shape[1])

    def _gold(self, rows: Tensor) -> Tensor:
        """Return the classes of rows (F, B) as (F, C, 1, B) of zeros and ones."""
        return self.targets[rows].transpose(1, 2).unsqueeze(2).contiguous()

    def _by_l2(self, merged: Tensor) -> Tensor:
        """Split the classes and L2 values of (F, C * R, X): (F, C, R, X)."""
        values = self.targets.shape[1], self.misses.shape[1]
        return merged.view(len(merged), *values, merged.shape[2])


def _first_weights(width: int, classes: int) -> Tensor:
    """Return the first weights and bias of torch's linear layer under the seed: (C, D + 1)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = torch.nn.Linear(width, classes)
    return torch.cat([layer.weight.detach(), layer.bias.detach().unsqueeze(1)], dim=1)


def _fit_lbfgs(features: NDArray[np.float32], labels: Rows, fit: Fit, advance: Advance) -> Fitted:
    """Solve each L2 value by L-BFGS; the bias is not decayed, and nothing is held out."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ResourceError("--solver lbfgs needs: pip install 'simcse-next[sklearn]'") from error
    model: Any = LogisticRegression(max_iter=LBFGS_ITERATIONS, warm_start=True)
    inputs, targets, classes = features[fit.train], labels[fit.train], int(labels.max()) + 1
    held_out = fit.train if fit.dev is None else fit.dev
    accuracy, weights = [], []
    for l2 in fit.l2:
        model.set_params(C=1 / (l2 * len(fit.train))).fit(inputs, targets)
        found = np.zeros((features.shape[1] + 1, classes), np.float32)
        # Of two classes scikit-learn has only the difference, as weights of the second.
        columns = model.classes_ if len(model.coef_) > 1 else model.classes_[1:]
        found[:, columns] = np.vstack([model.coef_.T, model.intercept_])
        weights.append(found)
        accuracy.append((predict(found, features[held_out]) == labels[held_out]).mean())
        advance(1)
    return Fitted(np.array(accuracy), np.stack(weights))

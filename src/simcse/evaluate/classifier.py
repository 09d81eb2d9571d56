"""SentEval's classifier: softmax regression on frozen embeddings, many fits as one product.

SentEval trains one small model after another. Here fits over training sets of the same size run
together: they see their examples in the same order, because SentEval seeds its generator anew for
each, so that a step is one batched matrix product over fits and L2 values.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from simcse.errors import ConfigError, ResourceError
from simcse.evaluate.vectors import Floats

Solver = Literal["adam", "rmsprop", "lbfgs"]
Rows = NDArray[np.intp]
Advance = Callable[[int], None]  # told how many fits were finished

SEED = 1111  # of the folds, the first weights and the order of examples, as in SentEval
MAX_EPOCHS = 200
HELD_OUT = 0.05  # of the training examples, to stop early where there is no dev set
GATHERED_CELLS = 1 << 18  # floats of the examples of one step; 1 MB, so that it stays in the cache
LBFGS_ITERATIONS = 1000


@dataclass(frozen=True)
class Protocol:
    """How the classifier is trained; the defaults are SentEval's full protocol.

    Attributes:
        folds: of the cross-validation, outer and inner.
        solver: ``adam`` and ``rmsprop`` with their default learning rates as SentEval; ``lbfgs``
            minimizes the same loss to the end (scikit-learn), which is not SentEval's protocol.
        batch: examples of a step.
        tenacity: looks without improvement, over the whole training, before the last one.
        epoch_size: epochs between two looks at the dev set.
    """

    folds: int = 10
    solver: Solver = "adam"
    batch: int = 64
    tenacity: int = 5
    epoch_size: int = 4

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ConfigError(f"folds must be at least 2, got {self.folds}")
        if min(self.batch, self.tenacity + 1, self.epoch_size) < 1:
            raise ConfigError(f"batch, tenacity and epoch_size must be positive, got {self}")


FULL = Protocol()
FAST = Protocol(folds=5, solver="rmsprop", batch=128, tenacity=3, epoch_size=2)


@dataclass(frozen=True, eq=False)
class Fit:
    """One training set with every L2 value tried on it.

    Attributes:
        train: rows of the examples it learns from.
        dev: rows it stops early by; ``None`` holds out `HELD_OUT` of ``train``.
        l2: (R,) factors of the squared weights, the bias included.
    """

    train: Rows
    dev: Rows | None
    l2: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Fitted:
    """What came out of a `Fit`.

    Attributes:
        accuracy: (R,) on the dev rows, from 0 to 1, at the best look.
        weights: (R, D + 1, C) of that look; the last row is the bias.
    """

    accuracy: Floats
    weights: NDArray[np.float32]


def fit_classifiers(
    features: NDArray[np.float32],
    labels: Rows,
    fits: Sequence[Fit],
    protocol: Protocol,
    *,
    advance: Advance = lambda count: None,
) -> list[Fitted]:
    """Train every fit on its rows of features (N, D) and labels (N,) 0..C-1.

    Raises:
        ResourceError: the solver is ``lbfgs`` and scikit-learn is not installed.
    """
    if protocol.solver == "lbfgs":
        return [_minimize(features, labels, fit, advance) for fit in fits]
    ones = np.ones((len(features), 1), np.float32)
    inputs = torch.from_numpy(np.hstack([features, ones]))  # (N, D + 1)
    targets = torch.from_numpy(np.eye(labels.max() + 1, dtype=np.float32)[labels])  # (N, C)
    first = _first_weights(features.shape[1], targets.shape[1])
    together = max(1, GATHERED_CELLS // (protocol.batch * inputs.shape[1]))
    groups = [
        group[start : start + together]
        for group in _same_size(fits)
        for start in range(0, len(group), together)
    ]

    def train(group: list[int], told: Advance) -> list[Fitted]:
        chosen = [fits[number] for number in group]
        return _Training(inputs, targets, first, chosen, protocol).run(told)

    results: dict[int, Fitted] = {}
    for group, found in zip(groups, _on_all_cores(train, groups, advance), strict=True):
        results |= zip(group, found, strict=True)
    return [results[number] for number in range(len(fits))]


def predict(weights: NDArray[np.float32], features: NDArray[np.float32]) -> Rows:
    """Return the most likely class: weights (D + 1, C), features (N, D) -> (N,)."""
    found: Rows = (features @ weights[:-1] + weights[-1]).argmax(axis=1)
    return found


def _same_size(fits: Sequence[Fit]) -> list[list[int]]:
    """Group the numbers of fits whose training and dev sets are equally large."""

    def size(number: int) -> tuple[int, int, int]:
        fit = fits[number]
        return len(fit.train), -1 if fit.dev is None else len(fit.dev), len(fit.l2)

    return [list(group) for _, group in groupby(sorted(range(len(fits)), key=size), key=size)]


def _on_all_cores(
    train: Callable[[list[int], Advance], list[Fitted]],
    groups: Sequence[list[int]],
    advance: Advance,
) -> list[list[Fitted]]:
    """Train each group in one thread, as many at a time as torch may use; scores stay the same."""
    threads, lock, left = torch.get_num_threads(), threading.Lock(), threading.Event()

    def told(count: int) -> None:
        if left.is_set():  # by Ctrl-C, say: nobody waits for what is still being trained
            raise CancelledError
        with lock:
            advance(count)

    one_core = (1,)
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=one_core) as pool:
        try:
            return list(pool.map(lambda group: train(group, told), groups))
        finally:
            left.set()
            torch.set_num_threads(threads)  # of threads that are made later


class _Training:
    """F fits over sets of the same size, each with R values of L2, advancing in step.

    A fit whose R values have all stopped leaves; its place in the products is given up.
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
        classes = targets.shape[1]
        l2 = torch.tensor([fit.l2 for fit in fits], dtype=torch.float32)  # (F, R)
        self.l2 = l2.repeat(1, classes).unsqueeze(2)  # (F, C * R, 1)
        first = first.repeat_interleave(l2.shape[1], dim=0)  # (C, D + 1) -> (C * R, D + 1)
        self.weights = first.repeat(len(fits), 1, 1)  # (F, C * R, D + 1)
        self.step = _OPTIMIZERS[protocol.solver](self.weights)
        self.places = torch.arange(len(fits))  # which fit each row still in training is
        self.misses = torch.zeros(l2.shape, dtype=torch.long)  # (F, R)
        self.stopped = torch.zeros(l2.shape, dtype=torch.bool)
        self.best = torch.full(l2.shape, -1, dtype=torch.long)  # correct dev examples
        self.kept = self._by_value(self.weights).clone()  # (F, C, R, D + 1)

    def run(self, advance: Advance) -> list[Fitted]:
        """Train until every fit has stopped."""
        epochs = 0
        while len(self.places) and epochs <= MAX_EPOCHS:
            for _ in range(self.protocol.epoch_size):
                self._epoch()
            epochs += self.protocol.epoch_size
            advance(self._look())
        advance(int((~self.stopped).sum()))  # those that ended at the limit of epochs
        size = max(1, self.dev.shape[1])
        accuracy = (self.best.double() / size).numpy()  # (F, R)
        weights = self.kept.permute(0, 2, 3, 1).numpy()  # (F, R, D + 1, C)
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
            error = self._by_value(logits).softmax(1)  # (F, C, R, B)
            error -= truth
            error /= rows.shape[1]  # the mean loss, as SentEval's torch computes it
            gradient = torch.bmm(error.view_as(logits), batch)  # (F, C * R, D + 1)
            gradient.addcmul_(self.l2, self.weights)  # coupled decay, bias included, as torch's
            self.step.update(self.weights, gradient)

    def _look(self) -> int:
        """Score the dev sets, keep what is better, and return how many values stopped."""
        logits = torch.bmm(self.weights, self._gather(self.dev).transpose(1, 2))  # (F, C * R, m)
        found = self._by_value(logits).argmax(1)  # (F, R, m)
        correct = (found == self._gold(self.dev).argmax(1)).sum(2)  # (F, R)
        running = ~self.stopped[self.places]
        better = running & (correct > self.best[self.places])
        missed = running & ~better
        # The counter is never reset, and one miss beyond the tenacity ends it: SentEval's `fit`.
        ended = missed & (self.misses[self.places] >= self.protocol.tenacity)
        self.best[self.places] = torch.where(better, correct, self.best[self.places])
        self.kept[self.places] = torch.where(
            better[:, None, :, None], self._by_value(self.weights), self.kept[self.places]
        )
        self.misses[self.places] += missed
        self.stopped[self.places] |= ended
        self._leave(~self.stopped[self.places].all(1))
        return int(ended.sum())

    def _leave(self, staying: Tensor) -> None:
        if staying.all():
            return
        self.places, self.train, self.dev = (
            rows[staying] for rows in (self.places, self.train, self.dev)
        )
        self.l2, self.weights = self.l2[staying], self.weights[staying]
        self.step.moments = [moment[staying] for moment in self.step.moments]

    def _gather(self, rows: Tensor) -> Tensor:
        """Return the inputs of rows (F, B): (F, B, D + 1)."""
        return self.inputs.index_select(0, rows.flatten()).view(*rows.shape, self.inputs.shape[1])

    def _gold(self, rows: Tensor) -> Tensor:
        """Return the classes of rows (F, B) as (F, C, 1, B) of zeros and ones."""
        return self.targets[rows].transpose(1, 2).unsqueeze(2).contiguous()

    def _by_value(self, merged: Tensor) -> Tensor:
        """Split the classes and L2 values of (F, C * R, X): (F, C, R, X)."""
        values = self.targets.shape[1], self.misses.shape[1]
        return merged.view(len(merged), *values, merged.shape[2])


class _Adam:
    """Adam with torch's defaults, for weights trained together."""

    rate, decay, square_decay, epsilon = 1e-3, 0.9, 0.999, 1e-8

    def __init__(self, weights: Tensor) -> None:
        self.moments = [torch.zeros_like(weights), torch.zeros_like(weights)]
        self.steps = 0

    def update(self, weights: Tensor, gradient: Tensor) -> None:
        self.steps += 1
        mean, square = self.moments
        mean.lerp_(gradient, 1 - self.decay)
        square.mul_(self.square_decay).addcmul_(gradient, gradient, value=1 - self.square_decay)
        unbiased = (1 - self.square_decay**self.steps) ** 0.5
        divisor = square.sqrt().add_(self.epsilon * unbiased)
        rate = self.rate * unbiased / (1 - self.decay**self.steps)
        weights.addcdiv_(mean, divisor, value=-rate)


class _RmsProp:
    """RMSprop with torch's defaults."""

    rate, decay, epsilon = 1e-2, 0.99, 1e-8

    def __init__(self, weights: Tensor) -> None:
        self.moments = [torch.zeros_like(weights)]

    def update(self, weights: Tensor, gradient: Tensor) -> None:
        (square,) = self.moments
        square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        weights.addcdiv_(gradient, square.sqrt().add_(self.epsilon), value=-self.rate)


_OPTIMIZERS: dict[str, type[_Adam] | type[_RmsProp]] = {"adam": _Adam, "rmsprop": _RmsProp}


def _first_weights(width: int, classes: int) -> Tensor:
    """Return the first weights and bias of torch's linear layer under the seed: (C, D + 1)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        layer = torch.nn.Linear(width, classes)
    return torch.cat([layer.weight.detach(), layer.bias.detach().unsqueeze(1)], dim=1)


def _minimize(features: NDArray[np.float32], labels: Rows, fit: Fit, advance: Advance) -> Fitted:
    """Solve each L2 value by L-BFGS; the bias is not decayed, and nothing is held out."""
    model = _logistic_regression()
    inputs, targets, classes = features[fit.train], labels[fit.train], int(labels.max()) + 1
    accuracy, weights = [], []
    for l2 in fit.l2:
        model.set_params(C=1 / (l2 * len(fit.train))).fit(inputs, targets)
        found = np.zeros((features.shape[1] + 1, classes), np.float32)
        # Of two classes scikit-learn keeps the difference, as weights of the second.
        kept = model.classes_ if len(model.coef_) > 1 else model.classes_[1:]
        found[:, kept] = np.vstack([model.coef_.T, model.intercept_])
        weights.append(found)
        held_out = fit.train if fit.dev is None else fit.dev
        accuracy.append((predict(found, features[held_out]) == labels[held_out]).mean())
        advance(1)
    return Fitted(np.array(accuracy), np.stack(weights))


def _logistic_regression() -> Any:  # noqa: ANN401 - an optional package's class
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ResourceError("--solver lbfgs needs: pip install 'simcse-next[sklearn]'") from error
    return LogisticRegression(max_iter=LBFGS_ITERATIONS, warm_start=True)

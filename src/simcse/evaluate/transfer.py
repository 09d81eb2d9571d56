"""The transfer tasks of SentEval: a linear classifier on frozen embeddings.

Gao et al. 2021, section 6.1 and appendix E; the protocol is that of SentEval's code
(Conneau and Kiela 2018), to the letter.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import stdev

import numpy as np
from numpy.typing import NDArray

from simcse.errors import DataError
from simcse.evaluate import Encode
from simcse.evaluate.classifier import (
    SEED,
    Advance,
    Fit,
    Protocol,
    Rows,
    fit_classifiers,
    predict,
)
from simcse.evaluate.vectors import encode_checked, unit
from simcse.io.benchmarks import LabeledSentences, TransferTask

TRANSFER_TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")
L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, slots=True, eq=False)
class TransferResult:
    """One task's scores, x100."""

    task: str  # the task's name
    accuracy: float  # on the test examples; where the task is cross-validated, the mean over folds
    dev: float  # on the examples that L2 was chosen by
    f1: float | None  # of the positive class on the test examples, for MRPC
    folds: tuple[float, ...]  # accuracy of each outer fold; one value where the task has a test set
    l2: tuple[float, ...]  # the value chosen in each of them
    # (N,) whether each test example, in the order of its file, was classified correctly
    correct: NDArray[np.bool_]

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the outer folds, where there are several."""
        return stdev(self.folds) if len(self.folds) > 1 else None


@dataclass(frozen=True, eq=False)
class _Split:
    """One test set, its training set, and the dev set if the task has one."""

    train: Rows
    test: Rows
    dev: Rows | None = None


def evaluate_transfer(
    encode: Encode,
    task: TransferTask,
    protocol: Protocol,
    *,
    advance: Advance = lambda count: None,
) -> TransferResult:
    """Score an encoder on one transfer task.

    Args:
        encode: sentences to vectors, normalized or not as the model does.
        task: the examples.
        protocol: SentEval's `FULL` or `FAST`, or one with the solver ``lbfgs``.
        advance: called with the number of fits that have just finished, of `count_fits`.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        NumericError: an embedding holds NaN or infinity.
        ResourceError: the solver needs a package that is not installed.
    """
    examples = list(task.splits.values())
    features = np.concatenate([_features(encode, part) for part in examples])  # (N, D)
    names = [label for part in examples for label in part.labels]
    labels = np.unique(names, return_inverse=True)[1]  # (N,)
    splits = list(_outer_splits(task, labels, protocol.folds))
    chosen, dev = _choose_l2(features, labels, splits, protocol, advance)
    final = [Fit(split.train, split.dev, (l2,)) for split, l2 in zip(splits, chosen, strict=True)]
    predicted = np.full(len(labels), -1)
    fitted = fit_classifiers(features, labels, final, protocol, advance=advance)
    for split, found in zip(splits, fitted, strict=True):
        predicted[split.test] = predict(found.weights[0], features[split.test])
    tested = np.sort(np.concatenate([split.test for split in splits]))
    folds = [(predicted[split.test] == labels[split.test]).mean() for split in splits]
    return TransferResult(
        task.name,
        accuracy=100 * float(np.mean(folds)),
        dev=dev,
        f1=100 * _f1(predicted[tested], labels[tested]) if task.name == "mrpc" else None,
        folds=tuple(100 * float(fold) for fold in folds),
        l2=chosen,
        correct=predicted[tested] == labels[tested],
    )


def count_fits(task: TransferTask, protocol: Protocol) -> int:
    """Return how many classifiers a task trains."""
    outer_folds = protocol.folds if "all" in task.splits else 1
    inner_folds = 1 if "dev" in task.splits else protocol.folds
    return outer_folds * (inner_folds * len(L2_GRID) + 1)


def transfer_average(results: Mapping[str, TransferResult]) -> float | None:
    """Average accuracy x100 over the seven tasks; ``None`` if any is missing."""
    if not results.keys() >= set(TRANSFER_TASKS):
        return None
    return float(np.mean([results[task].accuracy for task in TRANSFER_TASKS]))


def stratified_folds(labels: Rows, folds: int) -> Rows:
    """Return each example's fold, (N,) 0..folds-1, every fold with its share of each class.

    The folds of scikit-learn's ``StratifiedKFold(folds, shuffle=True, random_state=1111)``.

    Raises:
        DataError: a class has fewer examples than there are folds.
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    classes = np.argsort(np.argsort(first))[inverse]  # (N,) numbered in order of appearance
    if np.bincount(classes).min() < folds:
        raise DataError(f"a class has fewer than {folds} examples, one for each fold")
    ordered = np.sort(classes)
    shares = [np.bincount(ordered[fold::folds], minlength=len(first)) for fold in range(folds)]
    random, found = np.random.RandomState(SEED), np.empty(len(labels), np.intp)
    for number, counts in enumerate(np.transpose(shares)):
        of_class = np.arange(folds).repeat(counts)
        random.shuffle(of_class)
        found[classes == number] = of_class
    return found


def _choose_l2(
    features: NDArray[np.float32],
    labels: Rows,
    outer: list[_Split],
    protocol: Protocol,
    advance: Advance,
) -> tuple[tuple[float, ...], float]:
    """Return each split's best L2 and the mean of its dev scores, x100; all fits run together."""
    fits, split_numbers = [], []
    for number, split in enumerate(outer):
        for train, dev in _inner_splits(split, labels, protocol.folds):
            fits.append(Fit(train, dev, L2_GRID))
            split_numbers.append(number)
    fitted = fit_classifiers(features, labels, fits, protocol, advance=advance)
    accuracy = np.stack([found.accuracy for found in fitted])  # (fits, R)
    numbers = np.array(split_numbers)
    # SentEval rounds to two decimals first, so that the smaller of two equal values wins.
    scores = [(100 * accuracy[numbers == i].mean(axis=0)).round(2) for i in range(len(outer))]
    chosen = tuple(L2_GRID[int(score.argmax())] for score in scores)
    return chosen, float(np.mean([score.max() for score in scores]))


def _outer_splits(task: TransferTask, labels: Rows, folds: int) -> Iterator[_Split]:
    """Yield the task's test set, or else the folds of its cross-validation.

    Rows are in SentEval's order, which sorts by length before anything is split.
    """
    offset, ordered = 0, {}
    for name, part in task.splits.items():
        ordered[name] = offset + _senteval_order(part)
        offset += len(part.labels)
    if "all" not in ordered:
        yield _Split(ordered["train"], ordered["test"], ordered.get("dev"))
        return
    for train, test in _fold_rows(ordered["all"], labels, folds):
        yield _Split(train, test)


def _inner_splits(split: _Split, labels: Rows, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the training and dev rows that L2 is chosen on."""
    if split.dev is not None:
        yield split.train, split.dev
    else:
        yield from _fold_rows(split.train, labels, folds)


def _fold_rows(rows: Rows, labels: Rows, folds: int) -> Iterator[tuple[Rows, Rows]]:
    fold = stratified_folds(labels[rows], folds)
    for number in range(folds):
        yield rows[fold != number], rows[fold == number]


def _senteval_order(part: LabeledSentences) -> Rows:
    """Sort by the lengths in tokens, then the label: (N,) rows."""
    lengths = [[len(text.split()) for text in side] for side in part.texts]
    keys = list(zip(*lengths, part.labels, strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)


def _features(encode: Encode, part: LabeledSentences) -> NDArray[np.float32]:
    """Return embeddings (N, D); of pairs [|u - v|, u * v], (N, 2 D)."""
    sides = [encode_checked(encode, side, part.path.name) for side in part.texts]
    sides = [side.astype(np.float32, copy=False) for side in sides]
    for vectors in sides:
        unit(vectors)  # raises where a value is not finite
    if len(sides) == 1:
        return sides[0]
    first, second = sides
    return np.hstack([np.abs(first - second), first * second])


def _f1(predicted: Rows, labels: Rows) -> float:
    """Return F1 of class 1; 0 where it neither occurs nor is predicted."""
    both = int(((predicted == 1) & (labels == 1)).sum())
    either = int((predicted == 1).sum() + (labels == 1).sum())
    return 2 * both / either if either else 0.0

"""The transfer tasks of SentEval: what a linear classifier reads from frozen embeddings.

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
from simcse.evaluate.vectors import unit
from simcse.io.benchmarks import LabeledSentences, TransferTask

TRANSFER_TASKS = ("mr", "cr", "subj", "mpqa", "sst2", "trec", "mrpc")
L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, slots=True, eq=False)
class TransferResult:
    """One task's scores, x100.

    Attributes:
        task: the task's name.
        accuracy: on the test examples; where the task is cross-validated, the mean over folds.
        dev: on the examples L2 was chosen by.
        f1: of the positive class on the test examples, for MRPC.
        folds: accuracy of each outer fold; one value where the task has a test set.
        l2: the value chosen in each of them.
        correct: (N,) whether each test example, in the order of its file, was told right.
    """

    task: str
    accuracy: float
    dev: float
    f1: float | None
    folds: tuple[float, ...]
    l2: tuple[float, ...]
    correct: NDArray[np.bool_]

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the outer folds, where there are several."""
        return stdev(self.folds) if len(self.folds) > 1 else None


@dataclass(frozen=True, eq=False)
class _Part:
    """One test set, what may be learnt from, and the dev set if the task has one."""

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
        encode: sentences to vectors, unit or raw as the model says.
        task: the examples.
        protocol: SentEval's `FULL` or `FAST`, or one with the solver ``lbfgs``.
        advance: is told of every few fits that are finished; there are `count_fits` of them.

    Raises:
        DataError: ``encode`` did not return one vector for each sentence.
        NumericError: an embedding holds NaN or infinity.
        ResourceError: the solver needs a package that is not installed.
    """
    examples = list(task.splits.values())
    features = np.concatenate([_features(encode, part) for part in examples])  # (N, D)
    written = [label for part in examples for label in part.labels]
    labels = np.unique(written, return_inverse=True)[1]  # (N,)
    parts = list(_parts(task, labels, protocol.folds))
    chosen, dev = _choose_l2(features, labels, parts, protocol, advance)
    final = [Fit(part.train, part.dev, (l2,)) for part, l2 in zip(parts, chosen, strict=True)]
    predicted = np.full(len(labels), -1)
    fitted = fit_classifiers(features, labels, final, protocol, advance=advance)
    for part, found in zip(parts, fitted, strict=True):
        predicted[part.test] = predict(found.weights[0], features[part.test])
    tested = np.sort(np.concatenate([part.test for part in parts]))
    folds = [(predicted[part.test] == labels[part.test]).mean() for part in parts]
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
    outer = protocol.folds if "all" in task.splits else 1
    inner = 1 if "dev" in task.splits else protocol.folds
    return outer * (inner * len(L2_GRID) + 1)


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
    classes = np.argsort(np.argsort(first))[inverse]  # (N,) numbered as they are first met
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
    parts: list[_Part],
    protocol: Protocol,
    advance: Advance,
) -> tuple[tuple[float, ...], float]:
    """Return each part's best L2 and the mean of its dev scores, x100; all fits run together."""
    splits = [
        (number, Fit(train, dev, L2_GRID))
        for number, part in enumerate(parts)
        for train, dev in _inner(part, labels, protocol.folds)
    ]
    fits = [fit for _, fit in splits]
    fitted = fit_classifiers(features, labels, fits, protocol, advance=advance)
    owners = np.array([number for number, _ in splits])
    accuracy = np.stack([found.accuracy for found in fitted])  # (fits, R)
    # SentEval rounds to two decimals first, so that the smaller of two equal values wins.
    scores = [(100 * accuracy[owners == i].mean(axis=0)).round(2) for i in range(len(parts))]
    chosen = tuple(L2_GRID[int(score.argmax())] for score in scores)
    return chosen, float(np.mean([score.max() for score in scores]))


def _parts(task: TransferTask, labels: Rows, folds: int) -> Iterator[_Part]:
    """Yield what is tested: the folds of a task without a test set, else that test set.

    Rows are in SentEval's order, which sorts by length before anything is split.
    """
    offset, ordered = 0, {}
    for name, part in task.splits.items():
        ordered[name] = offset + _senteval_order(part)
        offset += len(part.labels)
    if "all" not in ordered:
        yield _Part(ordered["train"], ordered["test"], ordered.get("dev"))
        return
    rows = ordered["all"]
    fold = stratified_folds(labels[rows], folds)
    for number in range(folds):
        yield _Part(rows[fold != number], rows[fold == number])


def _inner(part: _Part, labels: Rows, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """Yield the splits that L2 is chosen on."""
    if part.dev is not None:
        yield part.train, part.dev
        return
    fold = stratified_folds(labels[part.train], folds)
    for number in range(folds):
        yield part.train[fold != number], part.train[fold == number]


def _senteval_order(part: LabeledSentences) -> Rows:
    """Sort by the lengths in tokens, then the label: (N,) rows."""
    lengths = [[len(text.split()) for text in side] for side in part.texts]
    keys = list(zip(*lengths, part.labels, strict=True))
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.intp)


def _features(encode: Encode, part: LabeledSentences) -> NDArray[np.float32]:
    """Return the embeddings, of a pair the difference's size and the product: (N, D or 2 D)."""
    sides = [np.asarray(encode(side), np.float32) for side in part.texts]
    for vectors in sides:
        if vectors.ndim != 2 or len(vectors) != len(part.labels):
            expected = f"({len(part.labels)}, D) for the sentences of {part.path.name}"
            raise DataError(f"encode must return shape {expected}, got {vectors.shape}")
        unit(vectors)  # refuses what is not finite
    if len(sides) == 1:
        return sides[0]
    first, second = sides
    return np.hstack([np.abs(first - second), first * second])


def _f1(predicted: Rows, labels: Rows) -> float:
    """F1 of class 1; 0 where it is neither there nor predicted."""
    both = int(((predicted == 1) & (labels == 1)).sum())
    either = int((predicted == 1).sum() + (labels == 1).sum())
    return 2 * both / either if either else 0.0

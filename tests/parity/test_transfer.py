"""Transfer against SentEval's protocol written out plainly: one fit after another, torch.optim."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import StratifiedKFold

from simcse.errors import ConfigError, DataError, NumericError
from simcse.evaluate import classifier
from simcse.evaluate.classifier import FAST, FULL, Fit, Protocol, fit_classifiers, predict
from simcse.evaluate.transfer import (
    L2_GRID,
    count_fits,
    evaluate_transfer,
    stratified_folds,
    transfer_average,
)
from simcse.io.benchmarks import LabeledSentences, TransferTask

WIDTH = 12
SHORT = Protocol(folds=3, batch=32, tenacity=1, epoch_size=1)
SHORT_RMS = Protocol(folds=3, solver="rmsprop", batch=32, tenacity=1, epoch_size=1)


class PlainClassifier:
    """SentEval's MLP with ``nhid=0``, told again from reading its code."""

    def __init__(self, width, classes, l2, protocol):
        np.random.seed(1111)  # noqa: NPY002 - SentEval's generator
        torch.manual_seed(1111)
        self.model, self.protocol = torch.nn.Linear(width, classes), protocol
        make = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[protocol.solver]
        self.optimizer = make(self.model.parameters(), weight_decay=l2)

    def fit(self, x, y, dev=None):
        if dev is None:
            order = np.random.permutation(len(x))  # noqa: NPY002
            cut = int(0.05 * len(x))
            x, y, dev = x[order[cut:]], y[order[cut:]], (x[order[:cut]], y[order[:cut]])
        best, misses, epochs, stop = -1, 0, 0, False
        while not stop and epochs <= 200:
            for _ in range(self.protocol.epoch_size):
                self.epoch(torch.tensor(x), torch.tensor(y))
            epochs += self.protocol.epoch_size
            accuracy = self.score(*dev)
            if accuracy > best:
                best, kept = accuracy, copy.deepcopy(self.model)
            else:
                stop = misses >= self.protocol.tenacity
                misses += 1
        self.model = kept
        return self

    def epoch(self, x, y):
        order = np.random.permutation(len(x))  # noqa: NPY002
        for start in range(0, len(x), self.protocol.batch):
            rows = torch.tensor(order[start : start + self.protocol.batch])
            loss = torch.nn.functional.cross_entropy(self.model(x[rows]), y[rows])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def predict(self, x):
        return self.model(torch.tensor(x)).argmax(1).numpy()

    def score(self, x, y):
        return (self.predict(x) == y).mean()


def plain_choice(x, y, splits, protocol):
    """The L2 value with the best mean over the splits, rounded first, and that mean."""
    scores = []
    for l2 in L2_GRID:
        found = []
        for train, dev in splits:
            made = PlainClassifier(x.shape[1], y.max() + 1, l2, protocol)
            found.append(made.fit(x[train], y[train], (x[dev], y[dev])).score(x[dev], y[dev]))
        scores.append(round(100 * float(np.mean(found)), 2))
    return L2_GRID[int(np.argmax(scores))], max(scores)


def plain_folds(y, k):
    folds = StratifiedKFold(n_splits=k, shuffle=True, random_state=1111)
    return list(folds.split(np.zeros(len(y)), y))


def plain_nested(x, y, protocol):
    """SentEval's InnerKFoldClassifier."""
    tested, chosen = [], []
    for train, test in plain_folds(y, protocol.folds):
        inner = plain_folds(y[train], protocol.folds)
        l2, _ = plain_choice(x[train], y[train], inner, protocol)
        made = PlainClassifier(x.shape[1], y.max() + 1, l2, protocol).fit(x[train], y[train])
        tested.append(100 * made.score(x[test], y[test]))
        chosen.append(l2)
    return tested, chosen


def make_part(name, labels, first, second=()):
    return LabeledSentences(tuple(labels), tuple(first), tuple(second), Path(f"{name}.tsv"), "0")


@pytest.fixture
def world():
    """Sentences of several lengths, a label each, and vectors that half tell the label."""
    random = np.random.default_rng(5)
    texts = [f"s{number}" + " w" * int(random.integers(0, 9)) for number in range(330)]
    vectors = random.normal(size=(330, WIDTH)).astype(np.float32)
    return texts, dict(zip(texts, vectors, strict=True)), vectors


def encoder(table):
    return lambda texts: np.stack([table[text] for text in texts])


def noisy(vectors, classes):
    random = np.random.default_rng(6)
    scores = vectors[:, :classes] + random.normal(size=(len(vectors), classes))
    return scores.argmax(axis=1)


@pytest.mark.parametrize("protocol", [SHORT, SHORT_RMS])
def test_cross_validated_task_agrees_with_the_plain_protocol(world, protocol):
    texts, table, vectors = world
    labels = noisy(vectors, 2)
    task = TransferTask("mr", {"all": make_part("mr", map(str, labels), texts)})
    finished = []
    result = evaluate_transfer(encoder(table), task, protocol, advance=finished.append)
    order = sorted(range(330), key=lambda row: (len(texts[row].split()), labels[row]))
    folds, chosen = plain_nested(vectors[order], labels[order], protocol)
    assert result.accuracy == pytest.approx(np.mean(folds), abs=0.3)
    assert result.folds == pytest.approx(folds, abs=1.0)
    assert result.l2 == tuple(chosen)
    assert sum(finished) == count_fits(task, protocol) == 3 * (3 * 4 + 1)
    assert result.deviation == pytest.approx(np.std(result.folds, ddof=1))
    # The folds are not equally large, so the share of right ones is near, not equal.
    assert 100 * result.correct.mean() == pytest.approx(result.accuracy, abs=0.3)
    assert result.f1 is None


def test_task_with_a_test_set_agrees(world):
    texts, table, vectors = world
    labels = noisy(vectors, 6)
    names = np.array(["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"])[labels]
    task = TransferTask(
        "trec",
        {
            "train": make_part("trec-train", names[:250], texts[:250]),
            "test": make_part("trec-test", names[250:], texts[250:]),
        },
    )
    result = evaluate_transfer(encoder(table), task, SHORT)
    order = sorted(range(250), key=lambda row: (len(texts[row].split()), labels[row]))
    x, y = vectors[order], labels[order]
    l2, dev = plain_choice(x, y, plain_folds(y, 3), SHORT)
    made = PlainClassifier(WIDTH, 6, l2, SHORT).fit(x, y)
    assert result.dev == pytest.approx(dev, abs=0.3)
    assert result.l2 == (l2,)
    assert result.correct.tolist() == (made.predict(vectors[250:]) == labels[250:]).tolist()
    assert result.deviation is None


def test_task_with_a_dev_set_agrees(world):
    texts, table, vectors = world
    labels = noisy(vectors, 2)
    bounds = {"train": (0, 200), "dev": (200, 260), "test": (260, 330)}
    parts = {
        name: make_part(f"sst2-{name}", map(str, labels[a:b]), texts[a:b])
        for name, (a, b) in bounds.items()
    }
    result = evaluate_transfer(encoder(table), TransferTask("sst2", parts), SHORT)
    order = sorted(range(200), key=lambda row: (len(texts[row].split()), labels[row]))
    order += list(range(200, 330))
    x, y = vectors[order], labels[order]
    train, dev = np.arange(200), np.arange(200, 260)
    l2, score = plain_choice(x, y, [(train, dev)], SHORT)
    made = PlainClassifier(WIDTH, 2, l2, SHORT).fit(x[train], y[train], (x[dev], y[dev]))
    assert result.dev == pytest.approx(score, abs=0.3)
    assert result.accuracy == pytest.approx(100 * made.score(x[260:], y[260:]), abs=0.3)


def test_pairs_are_read_by_difference_and_product_and_have_an_f1(world):
    texts, table, vectors = world
    first, second = vectors[:165], vectors[165:]
    labels = ((first * second)[:, :4].sum(axis=1) > 0).astype(int)
    parts = {
        name: make_part(f"mrpc-{name}", map(str, labels[a:b]), texts[a:b], texts[165 + a : 165 + b])
        for name, (a, b) in {"train": (0, 120), "test": (120, 165)}.items()
    }
    result = evaluate_transfer(encoder(table), TransferTask("mrpc", parts), SHORT)
    x = np.hstack([np.abs(first - second), first * second])
    lengths = [len(text.split()) for text in texts]
    order = sorted(range(120), key=lambda row: (lengths[row], lengths[165 + row], labels[row]))
    l2, _ = plain_choice(x[order], labels[order], plain_folds(labels[order], 3), SHORT)
    made = PlainClassifier(2 * WIDTH, 2, l2, SHORT).fit(x[order], labels[order])
    predicted = made.predict(x[120:])
    assert result.accuracy == pytest.approx(100 * (predicted == labels[120:]).mean(), abs=0.3)
    assert result.f1 == pytest.approx(100 * f1_score(labels[120:], predicted), abs=0.3)


def test_folds_are_scikit_learns():
    labels = np.random.default_rng(7).integers(0, 4, 203)
    for k in (2, 5, 10):
        found = stratified_folds(labels, k)
        for number, (_, test) in enumerate(plain_folds(labels, k)):
            assert np.flatnonzero(found == number).tolist() == test.tolist()
    with pytest.raises(DataError, match="fewer than 9"):
        stratified_folds(np.array([0] * 20 + [1] * 8), 9)


@pytest.mark.parametrize("classes", [2, 3])
def test_lbfgs_is_scikit_learns_regression(world, classes):
    _, _, vectors = world
    labels = noisy(vectors, classes)
    fit = Fit(np.arange(200), np.arange(200, 330), L2_GRID)
    (found,) = fit_classifiers(vectors, labels, [fit], Protocol(solver="lbfgs"))
    for number, l2 in enumerate(L2_GRID):
        expected = LogisticRegression(C=1 / (l2 * 200), max_iter=1000)
        expected.fit(vectors[:200], labels[:200])
        predicted = predict(found.weights[number], vectors[200:])
        assert (predicted == expected.predict(vectors[200:])).mean() > 0.99
        assert found.accuracy[number] == (predicted == labels[200:]).mean()


@pytest.mark.parametrize("cells", [1, classifier.GATHERED_CELLS])
def test_fits_do_not_disturb_each_other(world, cells, monkeypatch):
    monkeypatch.setattr(classifier, "GATHERED_CELLS", cells)
    _, _, vectors = world
    labels = noisy(vectors, 2)
    rows = np.arange(330)
    fits = [
        Fit(rows[:200], rows[200:300], (1e-5, 1e-2)),
        Fit(rows[50:251], None, (1e-3,)),
        Fit(rows[20:220], rows[220:320], (1e-2, 1e-4)),
    ]
    together = fit_classifiers(vectors, labels, fits, SHORT)
    for fit, found in zip(fits, together, strict=True):
        (alone,) = fit_classifiers(vectors, labels, [fit], SHORT)
        assert found.weights == pytest.approx(alone.weights, abs=1e-5)
        assert found.accuracy == pytest.approx(alone.accuracy)


def test_cores_change_no_score_and_ctrl_c_ends_them_all(world, monkeypatch):
    monkeypatch.setattr(classifier, "GATHERED_CELLS", 1)
    _, _, vectors = world
    labels, rows = noisy(vectors, 2), np.arange(330)
    fits = [Fit(rows[start : start + 200], None, (1e-3,)) for start in range(0, 120, 20)]
    threads = torch.get_num_threads()
    try:
        found = []
        for cores in (1, 3):
            torch.set_num_threads(cores)
            found.append(fit_classifiers(vectors, labels, fits, SHORT))
            assert torch.get_num_threads() == cores
        for one, three in zip(*found, strict=True):
            assert np.array_equal(one.weights, three.weights)
        calls = []

        def interrupted(count):
            calls.append(count)
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit_classifiers(vectors, labels, fits, SHORT, advance=interrupted)
        assert len(calls) <= len(fits)  # none went on behind its first look
    finally:
        torch.set_num_threads(threads)


def test_the_two_protocols_are_sentevals():
    assert (FULL.folds, FULL.solver, FULL.batch, FULL.tenacity, FULL.epoch_size) == (
        *(10, "adam", 64, 5, 4),
    )
    assert (FAST.folds, FAST.solver, FAST.batch, FAST.tenacity, FAST.epoch_size) == (
        *(5, "rmsprop", 128, 3, 2),
    )


def test_refusals_and_missing_average(world):
    texts, table, _ = world
    task = TransferTask("mr", {"all": make_part("mr", ["0", "1"] * 165, texts)})
    with pytest.raises(DataError, match=r"must return shape \(330, D\)"):
        evaluate_transfer(lambda texts: np.ones((3, 2)), task, SHORT)
    with pytest.raises(NumericError):
        evaluate_transfer(lambda texts: np.full((len(texts), 2), np.nan), task, SHORT)
    with pytest.raises(ConfigError):
        Protocol(folds=1)
    assert transfer_average({}) is None

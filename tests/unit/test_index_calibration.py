"""What a cosine means: percentiles against NumPy, the logistic curve against scikit-learn."""

import numpy as np
import pytest

from simcse.errors import ArtifactError, DataError, UsageError
from simcse.index.calibration import Calibration, calibrate_index, fit_match
from simcse.index.sqlite import SqliteIndex
from simcse.io.fingerprint import ModelFingerprint
from simcse.io.rows import IndexRow

pytest.importorskip("faiss")


def labeled(count=400, *, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    return random.normal(0.3 + 0.3 * labels, 0.15), labels


def test_percentiles_are_those_of_all_pairs(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(300, 8)) + 0.3
    index = SqliteIndex.create(tmp_path / "index", ModelFingerprint("m", "f", 8))
    index.add([IndexRow(str(at), "text") for at in range(300)], vectors)
    index.commit()
    index.remove(["0"])  # a deleted row does not count
    index.commit()
    units = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    every = (units @ units.T)[~np.eye(299, dtype=bool)]
    calibration = calibrate_index(index)
    for score in (-0.5, 0.0, 0.3, 0.9):
        expected = 100 * (every < score).mean()
        assert calibration.percentile(score) == pytest.approx(expected, abs=0.5)
    assert calibration.percentile(-1) == 0
    assert calibration.percentile(1) == 100
    assert calibrate_index(index) == calibration
    assert Calibration.from_json(calibration.to_json()) == calibration
    assert calibration.describe(0.3) == {"percentile": round(calibration.percentile(0.3), 2)}


def test_the_logistic_curve_is_scikit_learns():
    calibration = pytest.importorskip("sklearn.calibration")
    scores, labels = labeled()
    match = fit_match(scores, labels)
    reference = calibration._SigmoidCalibration().fit(scores, labels)
    for score in (0.0, 0.3, 0.45, 0.8):
        expected = reference.predict(np.array([score]))[0]
        assert match.probability(score) == pytest.approx(expected, abs=1e-3)


def test_the_threshold_has_the_best_f1_or_the_wanted_precision():
    scores, labels = labeled()

    def measures(threshold):
        taken = scores >= threshold
        hits = labels[taken].sum()
        precision, recall = hits / max(1, taken.sum()), hits / labels.sum()
        return precision, recall, 2 * precision * recall / max(1e-9, precision + recall)

    best = fit_match(scores, labels)
    assert measures(best.threshold)[2] == pytest.approx(max(measures(s)[2] for s in scores))
    sure = fit_match(scores, labels, precision=0.95)
    assert measures(sure.threshold)[0] >= 0.95
    lower = scores[scores < sure.threshold]
    assert all(measures(score)[0] < 0.95 for score in lower)
    assert sure.precision == pytest.approx(0.95, abs=0.06)  # measured on pairs held out
    assert sure.recall < best.recall


def test_pairs_that_a_line_parts_have_finite_probabilities():
    scores = np.r_[np.linspace(0, 0.4, 20), np.linspace(0.6, 1, 20)]
    match = fit_match(scores, np.repeat([0, 1], 20))
    assert 0 < match.probability(-1.0) < 0.1
    assert 0.9 < match.probability(1.0) < 1
    assert match.threshold == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("scores", "labels", "precision", "kind", "problem"),
    [
        ([0.5] * 30, [1] * 25 + [0] * 5, None, DataError, "10 matches and 10 others, got 25"),
        ([0.5] * 3, [0, 1, 2], None, DataError, "labels must be 0 or 1"),
        ([0.5] * 40, [0, 1] * 20, 0.9, UsageError, "no threshold has the precision 0.9"),
        ([0.5] * 40, [0, 1] * 20, 1.5, UsageError, "precision must be in"),
    ],
)
def test_what_cannot_be_fitted(scores, labels, precision, kind, problem):
    with pytest.raises(kind, match=problem):
        fit_match(scores, labels, precision=precision)


def test_a_damaged_calibration_is_refused():
    with pytest.raises(ArtifactError, match="calibration is damaged"):
        Calibration.from_json({"quantiles": []})

"""The page of a training run."""

import pytest

from simcse.report.runs import best_step, key_values, training_report

SETTINGS = {"loss": {"temperature": 0.05}, "files": ["<script>.txt"], "resume": None}


def evaluation(step, score, *, best=False):
    measures = {"stsb_dev": score, "alignment": 0.2, "uniformity": -2.0}
    return {"event": "eval", "step": step, "best": best, **measures}


@pytest.fixture
def rows():
    steps = [{"event": "step", "step": step, "loss": 1 / step, "lr": 3e-5} for step in range(1, 9)]
    evaluations = [
        evaluation(2, 70.0, best=True),
        evaluation(4, None),
        evaluation(6, 75.25, best=True),
    ]
    return [*steps, *evaluations, {"event": "finish", "seconds": 12.5, "stopped": None}]


def test_training_page_has_curves_scores_outcome_and_settings(rows):
    page = training_report(rows, SETTINGS, versions={"torch": "2.13.0"})
    assert "8 steps were logged; the best is step 6: STS-B dev, Spearman ×100 75.25." in page
    assert page.count("<img ") == 6
    assert 'alt="Loss by step: 1 at first, 0.125 at last"' in page
    assert "<strong>75.250</strong>" in page
    for text in ("loss.temperature", "0.05", "&lt;script&gt;.txt", "seconds", "2.13.0"):
        assert text in page
    assert "<script>" not in page
    assert page == training_report(rows, SETTINGS, versions={"torch": "2.13.0"})


@pytest.mark.parametrize("rows", [[], [evaluation(1, None)], [evaluation(1, float("nan"))]])
def test_a_run_without_any_score_still_has_a_page(rows):
    page = training_report(rows, {})
    assert best_step(rows) is None
    assert "No step was logged; no evaluation had a score." in page
    assert ">nan<" not in page
    assert "provenance" not in page


def test_best_step_is_the_last_that_was_called_best():
    rows = [evaluation(0, 69.0, best=True), evaluation(2, 70.0, best=True), evaluation(3, 70.0)]
    assert best_step(rows) == best_step(rows[::-1]) == 2


def test_any_measure_is_shown_and_the_deciding_one_comes_first():
    row = {"event": "eval", "step": 1, "best": True, "mrr": 0.5, "alignment": 0.25}
    page = training_report([row], {})
    assert "the best is step 1: mrr 0.50." in page
    assert page.index(">mrr<") < page.index(">Alignment<")


def test_a_resumed_run_counts_a_step_once_as_logged_last():
    rows = [evaluation(2, 80.0, best=True), evaluation(4, 90.0, best=True), evaluation(4, 70.0)]
    assert best_step(rows) == 2
    assert "90.00" not in training_report(rows, {})


def test_nested_settings_become_dotted_names():
    assert key_values(
        "Settings", {"a": {"b": {"c": 1.5}}, "d": None, "e": "x", "f": True}
    ).rows == (
        ("a.b.c", "1.5"),
        ("d", None),
        ("e", "x"),
        ("f", "true"),
    )

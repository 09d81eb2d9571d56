"""The page and the tables of an evaluation."""

import json

import numpy as np
import pytest

from simcse.errors import ArtifactError, DataError
from simcse.evaluate.geometry import Geometry
from simcse.evaluate.retrieval import RetrievalResult
from simcse.evaluate.spectrum import space_statistics
from simcse.evaluate.sts import STS_TASKS, Correlation, StsResult
from simcse.evaluate.suite import ModelEvaluation
from simcse.evaluate.transfer import TRANSFER_TASKS, TransferResult
from simcse.io.results import read_results, write_results
from simcse.report.comparison import (
    ItemScores,
    array_to_text,
    compare_models,
    read_item_scores,
    text_to_array,
)
from simcse.report.evaluation import (
    Evaluation,
    evaluation_report,
    evaluation_results,
    evaluation_text,
    rating_bands,
)
from simcse.report.evaluation_tables import (
    geometry_table,
    space_table,
    sts_table,
    subset_table,
    transfer_table,
)
from simcse.report.tables import Spread, to_latex, to_markdown

SETTINGS = {"loss": {"temperature": 0.05}, "files": ["<script>.txt"], "resume": None}


def result(task, spearman):
    def same(pairs):
        return Correlation(pairs, spearman, spearman)

    aggregations = {"all": same(3), "mean": same(3), "wmean": same(3)}
    return StsResult(task, aggregations, {"news": same(2), "forum": Correlation(1, None, None)}, 0)


@pytest.fixture
def models():
    full = {task: result(task, 70.0 + number) for number, task in enumerate(STS_TASKS)}
    part = {"stsb": result("stsb", None), "stsb-dev": result("stsb-dev", 81.0)}
    return [
        ModelEvaluation(
            "full", full, Geometry(0.2, -2.5, 338, 2552, 0), settings=SETTINGS, seconds={"sts": 1.5}
        ),
        ModelEvaluation("<script>part", part),
    ]


def test_sts_table_leaves_out_what_is_missing(models):
    assert sts_table(models).rows == (
        ("full", 70.0, 71.0, 72.0, 73.0, 74.0, 75.0, 76.0, 73.0),
        ("<script>part", None, None, None, None, None, None, None, None),
    )


def test_subset_table_has_subsets_then_aggregations(models):
    assert subset_table(models, "stsb").rows == (
        ("news", 2, 75.0, None),
        ("forum", 1, None, None),
        ("aggregation all", 3, 75.0, None),
        ("aggregation mean", 3, 75.0, None),
        ("aggregation wmean", 3, 75.0, None),
    )


def test_geometry_table_has_the_measured_models_and_no_best(models):
    table = geometry_table([models[0], *models])
    assert table.rows == (("full", 0.2, -2.5, 338, 2552, 0),) * 2
    assert not any(table.is_best(row, column) for row in range(2) for column in range(6))


def test_evaluation_page(models):
    evaluation = Evaluation(
        models,
        aggregation="wmean",
        data={"sts12.tsv": "4cf5766e"},
        versions={"torch": "2.13.0"},
        notes=["sts13 has no SMT"],
    )
    page = evaluation_report(evaluation)
    assert "weighted by their pairs" in page
    for text in (
        "&lt;script&gt;part",
        "4cf5766e",
        "2.13.0",
        "sts13 has no SMT",
        "stsb-dev",
        "81.00",
    ):
        assert text in page
    assert page.count("<img ") == 2
    assert "<script>" not in page


def test_one_model_has_no_bars(models):
    assert evaluation_report(Evaluation(models[1:])).count("<img ") == 0


def transfer_result(task, accuracy, random):
    folds = (accuracy - 1, accuracy + 1) if task in ("mr", "cr", "subj", "mpqa") else (accuracy,)
    f1 = accuracy + 5 if task == "mrpc" else None
    correct = random.random(200) < accuracy / 100
    return TransferResult(task, accuracy, accuracy - 1, f1, folds, (1e-3,), correct)


@pytest.fixture
def whole():
    """Two models of one base, measured on everything; the second is whitened."""
    random = np.random.default_rng(3)
    gold = {task: random.integers(0, 6, 60).astype(float) for task in STS_TASKS}
    models = []
    for name, layer, accuracy in (("bare", "none", 85.0), ("white", "whitening", 80.0)):
        noise = 0.5 if name == "bare" else 3.0
        cosines = {
            task: (scores + noise * random.normal(size=60)) / 12 for task, scores in gold.items()
        }
        models.append(
            ModelEvaluation(
                name,
                {task: result(task, 70.0) for task in STS_TASKS},
                Geometry(0.2, -2.5, 338, 2552, 0),
                space_statistics(
                    random.normal(size=(30, 8)), positives=(np.eye(8), np.eye(8)[::-1])
                ),
                {task: transfer_result(task, accuracy, random) for task in TRANSFER_TASKS},
                {
                    "faq": RetrievalResult(
                        5,
                        9,
                        10,
                        0.5,
                        0.6,
                        0.7,
                        dict.fromkeys(("mrr", "recall", "ndcg"), (0.4, 0.6)),
                    )
                },
                cosines,
                settings={"postprocess": layer},
                base="same",
                seconds={"encoding": 3.25},
            )
        )
    return Evaluation(models, protocol="in a test", gold=gold)


def test_the_whole_page_has_every_table_figure_and_the_warning(whole):
    page = evaluation_report(whole)
    for text in ("Transfer", "MRPC F1", "Effective rank", "faq", "Recall@10", "Differences", "3.2"):
        assert text in page
    assert page.count("<img ") == 4  # bars, densities, plane, spectrum
    assert "white: whitening lowers the transfer average from 85.00 to 80.00" in page
    assert "http" not in page.replace("http-equiv", "")


def test_transfer_table_has_the_spread_over_folds(whole):
    table = transfer_table(whole.models, protocol="in a test")
    assert table.rows[0][1] == Spread(85.0, pytest.approx(2**0.5))
    assert table.rows[0][5:] == (85.0, 85.0, 85.0, 90.0, 85.0)
    assert table.is_best(0, 9)


def test_space_table_has_half_the_interval(whole):
    space = whole.models[0].space
    low, high = space.intervals["effective_rank"]
    shown = space_table(whole.models).rows[0][3]
    assert shown == Spread(space.effective_rank, (high - low) / 2)


def test_results_are_kept_and_compared_again(whole, tmp_path):
    write_results(tmp_path / "results.json", evaluation_results(whole))
    first, second = read_item_scores(read_results(tmp_path / "results.json"), "results.json")
    again = compare_models(first, second)
    direct = compare_models(*(ItemScores.of(model, whole.gold) for model in whole.models))
    assert list(again) == [*list(direct)]
    assert again["STS average"].difference == pytest.approx(
        direct["STS average"].difference, abs=0.05
    )
    assert again["MR"] == direct["MR"]
    assert again["STS average"].difference < 0 < again["Transfer average"].p
    with pytest.raises(ArtifactError, match="no scores of single test items"):
        read_item_scores({"models": [{}]}, "old.json")
    with pytest.raises(DataError, match="other pairs"):
        compare_models(
            first, ItemScores.of(whole.models[1], {task: np.zeros(60) for task in STS_TASKS})
        )


@pytest.mark.parametrize("values", [np.array([True, False, True]), np.array([0.5, -1.25], "f4")])
def test_packing_keeps_values(values):
    assert text_to_array(json.loads(json.dumps(array_to_text(values)))).tolist() == values.tolist()


def test_text_forms_have_every_table(whole):
    for render, mark in ((to_markdown, "| Model"), (to_latex, "\\toprule")):
        text = evaluation_text(whole, render)
        assert text.count(mark) >= 5


def test_rating_bands_split_at_whole_ratings():
    bands = rating_bands(np.arange(7) / 10, np.array([0, 0.5, 1, 2.9, 4, 4.9, 5]))
    assert [len(band) for band in bands.values()] == [2, 1, 1, 0, 3]

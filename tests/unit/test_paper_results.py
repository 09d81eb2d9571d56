"""Results of runs by the hash of what they depend on, and what of a training is kept."""

import pytest

from simcse.config import build
from simcse.errors import ArtifactError
from simcse.paper.results import Recipe, Store
from simcse.paper.runner import dev_scores
from simcse.train.settings import TrainConfig

CONFIG = TrainConfig()


def recipe(config=CONFIG, **changes):
    return Recipe(
        **{"model_sha256": "m", "data_sha256": "d", "dev_sha256": ("v",), **changes}, config=config
    )


def result(**more):
    values = {
        **{"scores": {"dev": 1.0}, "tests": [], "recipe": {}, "seconds": {}},
        **{"grid": "table-3", "row": "p = 0"},
    }
    return {**values, **more}


@pytest.mark.parametrize(
    "other",
    [
        recipe(build(TrainConfig, {"seed": 1})),
        recipe(build(TrainConfig, {"model": {"dropout": 0.2}})),
        recipe(model_sha256="n"),
        recipe(data_sha256="e"),
        recipe(dev_sha256=("w",)),
        recipe(postprocess="flow"),
        recipe(start=True),
    ],
)
def test_whatever_a_score_depends_on_makes_another_key(other):
    assert other.key != recipe().key


def test_how_a_run_is_carried_out_makes_none():
    other = build(TrainConfig, {"train": {"checkpoint_every": 7, "threads": 2}})
    assert recipe(other).key == recipe().key
    lr = build(TrainConfig, {"optim": {"lr": 1.0}})  # nothing is trained with it
    assert recipe(lr, start=True).key == recipe(start=True).key


def test_a_result_counts_only_if_it_holds_what_is_asked(tmp_path):
    store = Store(tmp_path)
    assert store.find("k") is None
    store.write("k", result(tests=["sts"]))
    assert Store(tmp_path).find("k", ["sts"])["scores"] == {"dev": 1.0}
    assert store.find("k", ["sts", "transfer"]) is None
    store.write("f", result(failed="it collapsed"))
    assert store.find("f", ["sts"])["failed"] == "it collapsed"


def test_a_repetition_keeps_what_was_measured_before(tmp_path):
    store = Store(tmp_path)
    store.write(
        "k", result(scores={"dev": 1.0, "sts_avg": 2.0, "mr": 3.0}, tests=["sts", "transfer"])
    )
    store.write("k", result(scores={"dev": 1.0, "mr": 4.0}, tests=["transfer (fast)"]))
    found = store.find("k", ["sts", "transfer (fast)"])
    assert found["scores"] == {"dev": 1.0, "sts_avg": 2.0, "mr": 4.0}
    assert store.find("k", ["transfer"]) is None


def test_a_repetition_stays_with_the_grid_that_trained_it_and_adds_its_time(tmp_path):
    store = Store(tmp_path)
    store.write("k", result(tests=["sts"], seconds={"training": 60.0, "measuring": 5.0}))
    again = {"grid": "density", "row": "none", "seconds": {"training": 60.0, "measuring": 2.0}}
    store.write("k", result(tests=["cosines"], **again))
    found = store.find("k", ["sts", "cosines"])
    assert found["seconds"] == {"training": 60.0, "measuring": 7.0}
    assert (found["grid"], found["row"]) == ("table-3", "p = 0")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 1, "key": "other"}', "{"])
def test_a_damaged_result_is_named(tmp_path, text):
    (tmp_path / "k.json").write_text(text)
    with pytest.raises(ArtifactError, match="k.json"):
        Store(tmp_path).find("k")


def test_scores_are_named_after_what_decides():
    metrics = {"mine": 3.0, "alignment": 0.1, "uniformity": None, "heldout_loss": 2.0}
    assert dev_scores(metrics) == {"dev": 3.0, "dev_alignment": 0.1, "dev_uniformity": None}
    assert dev_scores({}) == {}

"""`train` from a program: rows in memory, files, settings, callbacks, and the run folder."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import simcse
from simcse import SentenceEncoder, Trainer
from simcse.errors import ConfigError, DataError, UsageError
from simcse.io.checkpoints import read_safetensors
from simcse.io.files import ReadCounts
from simcse.io.log import read_log
from simcse.io.records import Example
from simcse.io.settings import read_toml
from simcse.train.callbacks import Checkpoints, LogFile, ModelSaver
from simcse.train.events import Evaluated, Event, Finished, StepDone, TrainingStarted
from simcse.train.reproduce import reproduce
from simcse.train.run import train
from simcse.train.settings import EvalConfig, RunConfig, TrainConfig
from simcse.train.training_data import TrainingData, load_training_data, rows_from_memory

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
SENTENCES = [f"the {a} and the {b}" for a in WORDS for b in WORDS]
QUICK = {
    "optim": {"batch_size": 16, "lr": 1e-3},
    "eval": {"dev": "none", "every": 2},
    "train.checkpoint_every": 2,
    "precision": "fp32",
}


@pytest.fixture
def model(tiny_model_folder):
    return str(tiny_model_folder)


def weights(run):
    return (run / "last" / "model.safetensors").read_bytes()


def test_five_lines_train_rows_in_memory(model, tmp_path):
    result = simcse.train(SENTENCES, model=model, output=tmp_path / "run", **QUICK)
    encoder = SentenceEncoder.load(tmp_path / "run" / "best")
    assert encoder.encode(["the dog"]).shape == (1, 32)
    assert (result.steps, result.seen) == (4, 128)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    folders = {"best", "last", "checkpoints", "tensorboard"}
    assert folders | {"log.jsonl", "settings.toml", "report.html"} <= names
    run = read_toml(tmp_path / "run" / "settings.toml")["run"]
    assert (run["train"], run["rows"], len(run["train_sha256"])) == ([], 64, 1)


def test_the_package_is_the_function_however_it_is_imported(model, tmp_path):
    """`simcse.train` is a package and a function: both ways to import it give the function."""
    code = "import simcse, inspect; from simcse import train; from simcse.train import train as f"
    check = "assert callable(train) and callable(simcse.train) and inspect.isfunction(f)"
    subprocess.run([sys.executable, "-c", f"{code}; {check}"], check=True, timeout=600)
    with pytest.raises(AttributeError, match="no attribute 'trainer_'"):
        _ = simcse.train.trainer_


def test_files_and_rows_in_memory_give_the_same_weights(model, tmp_path):
    path = tmp_path / "sentences.txt"
    path.write_text("".join(f"{sentence}\n" for sentence in SENTENCES))
    for name, data in (("a", SENTENCES), ("b", path), ("c", str(path)), ("d", [path])):
        train(data, model=model, output=tmp_path / name, report=None, **QUICK)
    assert len({weights(tmp_path / name) for name in "abcd"}) == 1
    assert not (tmp_path / "a" / "report.html").exists()


def test_rows_are_sentences_tuples_or_examples():
    counts = ReadCounts()
    rows = ["a\x00dog", ("a dog", "two dogs", "a cat", ""), ["a", "b"], Example("x", "y"), " "]
    assert rows_from_memory(rows, counts=counts) == [
        Example("a dog"),
        Example("a dog", "two dogs", ("a cat",)),
        Example("a", "b"),
        Example("x", "y"),
    ]
    assert (counts.rows, counts.blank) == (4, 1)
    labeled = rows_from_memory([("neutral", "a dog", "a cat")], labeled=True)
    assert labeled == [Example("a dog", "a cat", label="neutral")]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a", 3], "row 2: expected a sentence, a tuple of sentences or an Example, found int"),
        ([("a", None)], "row 1: expected a sentence"),
        ([("a", "")], "row 1: expected an anchor and a positive"),
        ([()], "row 1: expected an anchor"),
        ([__file__, __file__], "names of files .* pathlib.Path"),
    ],
)
def test_rows_that_are_none_of_these_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        rows_from_memory(rows)


def test_held_out_rows_are_for_evaluation_alone():
    config = TrainConfig(eval=EvalConfig(dev="heldout"))
    data = load_training_data(SENTENCES, config)
    assert (len(data.rows), len(data.all_rows)) == (58, 64)
    assert data.validate is not None
    assert load_training_data(data, config) is data
    again = load_training_data(TrainingData(data.all_rows), config)  # eval.dev is not ignored
    assert (again.rows, again.validate is None) == (data.rows, False)
    with pytest.raises(DataError, match="eval.dev=heldout .* eval.dev=none"):
        load_training_data(SENTENCES, TrainConfig(eval=EvalConfig(dev="nothing.tsv")))


def test_settings_are_sections_single_values_or_dotted_names(model, tmp_path):
    train(SENTENCES, model=model, output=tmp_path / "run", seed=7, **QUICK)
    settings = read_toml(tmp_path / "run" / "settings.toml")
    assert settings["seed"] == 7
    assert settings["train"]["checkpoint_every"] == 2
    assert settings["optim"]["batch_size"] == 16
    with pytest.raises(ConfigError, match="did you mean 'loss.temperature'"):
        train(SENTENCES, model=model, output=tmp_path / "other", loss={"temprature": 0.1})
    with pytest.raises(UsageError, match="found both: seed"):
        train(SENTENCES, model=model, output=tmp_path / "other", config=TrainConfig(), seed=1)
    assert not (tmp_path / "other").exists()


def test_a_user_s_callback_receives_typed_events_in_order(model, tmp_path):
    events = []
    train(SENTENCES, model=model, output=tmp_path / "run", callbacks=[events.append], **QUICK)
    assert all(isinstance(event, Event) for event in events)
    logged = [event for event in events if event.logged]
    assert [type(event) for event in logged] == [
        TrainingStarted, Evaluated, StepDone, StepDone, Evaluated, StepDone, StepDone, Evaluated,
        Finished,
    ]  # fmt: skip
    assert [event.step for event in events if event.name == "model"] == [0, 2, 4]
    assert [event.state.step for event in events if event.name == "checkpoint"] == [2, 4]
    assert [event.to_json() for event in logged] == read_log(tmp_path / "run" / "log.jsonl")
    with pytest.raises(dataclasses.FrozenInstanceError):
        logged[0].steps = 1


def test_a_user_s_callback_can_stop_a_run_which_is_resumed_to_the_same_bits(model, tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if isinstance(event, StepDone) and event.step == 3:
            raise Stop

    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(SENTENCES, model=model, output=whole, **QUICK)
    with pytest.raises(Stop):
        train(SENTENCES, model=model, output=stopped, callbacks=[stop], **QUICK)
    with pytest.raises(DataError, match="train_sha256"):  # D12, of rows in memory
        train(SENTENCES[1:], model=model, output=stopped, resume=True, **QUICK)
    notes = []
    options = {"model": model, "output": stopped, "resume": True, "callbacks": [notes.append]}
    result = train(SENTENCES, **options, **QUICK)
    assert weights(stopped) == weights(whole)
    assert [event.step for event in notes if event.name == "resume"] == [2]
    assert train(SENTENCES, **options, **QUICK) == result
    assert "is finished, nothing is left to do" in notes[-1].text
    with pytest.raises(UsageError, match="rows in memory"):
        reproduce(stopped, tmp_path / "again")


def test_a_trainer_and_its_callbacks_make_a_run_folder_by_hand(tiny_encoder, tmp_path):
    config = TrainConfig(
        precision="fp32", eval=EvalConfig(dev="none"), train=RunConfig(checkpoint_every=1)
    )
    saver = ModelSaver(tmp_path, provenance={"note": "by hand"})
    callbacks = [LogFile(tmp_path / "log.jsonl"), saver, Checkpoints(tmp_path)]
    result = Trainer(tiny_encoder, SENTENCES[:4], config, callbacks=callbacks).fit()
    assert result.steps == 1
    saved = SentenceEncoder.load(tmp_path / "last")
    assert saved.provenance["note"] == "by hand"
    again = Trainer(tiny_encoder, SENTENCES[:4], config, callbacks=callbacks).resume()
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(result, seconds=0)
    stored = read_safetensors(tmp_path / "last" / "model.safetensors")
    state = tiny_encoder.backbone.model.state_dict()
    assert all(torch.equal(stored[name], state[name]) for name in stored)


def test_a_custom_dev_evaluation_chooses_the_best(model, tmp_path):
    from simcse.train.validation import Validation

    scores = iter([1.0, 3.0, 2.0])

    def validate(encoder):
        score = next(scores)
        return Validation(score, {"mine": score})

    data = TrainingData(rows_from_memory(SENTENCES), validate)
    result = train(data, model=model, output=tmp_path / "run", **QUICK)
    assert (result.best_step, result.best) == (2, {"mine": 3.0})
    events = read_log(tmp_path / "run" / "log.jsonl")
    assert [event["mine"] for event in events if event["event"] == "eval"] == [1.0, 3.0, 2.0]


def test_a_list_of_paths_is_files_and_a_missing_one_is_named(tmp_path):
    with pytest.raises(DataError, match="no-such-file.txt"):
        train([Path("no-such-file.txt")], output=tmp_path / "run", eval={"dev": "none"})

"""Exact resume: what a checkpoint holds, how it is stored, and what a damaged one leads to."""

import json
import os
import signal
import threading

import pytest
import torch

from simcse.config import to_dict
from simcse.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    ResourceError,
    StoppedError,
    UsageError,
)
from simcse.io.locks import lock_folder
from simcse.io.log import append_log, sync_log, truncate_log
from simcse.io.manifests import MANIFEST, check_manifest, write_manifest
from simcse.io.records import Example
from simcse.losses.settings import LossConfig
from simcse.model.settings import ModelSettings
from simcse.train.callbacks import Checkpoints
from simcse.train.events import CheckpointReady
from simcse.train.optim import OptimConfig
from simcse.train.provenance import refuse_changes
from simcse.train.runtime import stop_signals
from simcse.train.settings import EvalConfig, GuardConfig, ModelConfig, RunConfig, TrainConfig
from simcse.train.state import CHECKPOINTS, TENSORS, TrainState, load_state, save_state
from simcse.train.trainer import Trainer
from simcse.train.training_data import TrainingData
from simcse.train.validation import Validation

ROWS = [Example(f"the {a} {b}") for a in ("man", "dog", "cat", "woman") for b in ("runs", "eats")]
CONFIG = TrainConfig(
    precision="bf16",
    loss=LossConfig(mlm_weight=0.1),
    optim=OptimConfig(lr=1e-3, batch_size=3, epochs=4),
    eval=EvalConfig(every=2, patience=4),
    guard=GuardConfig(max_rollbacks=1),
    train=RunConfig(checkpoint_every=1),
)
SCORES = {0: 1.0, 2: 3.0, 4: 2.0, 6: 4.0, 8: 1.0, 10: 5.0, 12: 2.0}


class Memory(Checkpoints):
    """Checkpoints in memory, by step."""

    def __init__(self, state=None):
        self.start, self.states = state, {}

    def __call__(self, event):
        if isinstance(event, CheckpointReady):
            state = event.state
            tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
            progress = json.loads(json.dumps(state.progress))  # as it is read from a file
            self.states[state.step] = TrainState(state.step, tensors, progress)

    def load(self):
        return self.start


class Recorded:
    """A run with all its events and checkpoints."""

    def __init__(self, make_encoder, *, state=None, scores=SCORES, config=CONFIG, callbacks=()):
        self.events = []
        self.scores = iter(list(scores.values())[0 if state is None else state.step // 2 + 1 :])
        encoder, memory = make_encoder(ModelSettings("mean", max_length=32)), Memory(state)
        rows = LABELED if config.loss.type == "classifier" else ROWS
        trainer = Trainer(
            encoder,
            TrainingData(rows, self.validate),
            config,
            callbacks=[self.record, memory, *callbacks],
        )
        self.report = trainer.fit() if state is None else trainer.resume()
        self.states = memory.states
        self.weights = torch.cat([p.flatten() for p in encoder.parameters()])

    def record(self, event):
        if event.logged:
            self.events.append(event.to_json())

    def validate(self, encoder):
        torch.rand(7)  # an evaluation may draw; training does not depend on it
        return Validation(score := next(self.scores), {"dev": score})

    def log(self, *, after=0):
        later = [e for e in self.events if e["event"] == "finish" or e.get("step", 0) > after]
        return [{key: value for key, value in e.items() if key != "seconds"} for e in later]


def plain(report):
    return {name: value for name, value in vars(report).items() if name != "seconds"}


def test_a_run_goes_on_from_any_step_to_the_same_bits(make_encoder):
    whole = Recorded(make_encoder)
    assert list(whole.states) == list(range(1, 13))
    for step in (1, 4, 7, 11):
        torch.rand(step)  # what was drawn before does not matter
        resumed = Recorded(make_encoder, state=whole.states[step])
        assert torch.equal(resumed.weights, whole.weights), step
        assert resumed.log(after=step) == whole.log(after=step)
        assert plain(resumed.report) == plain(whole.report)


VARIANTS = {
    "num_encoders": {"model": ModelConfig(num_encoders=2)},
    "classifier": {"loss": LossConfig(type="classifier", mlm_weight=0.1)},
    "queue": {"loss": LossConfig(queue_size=7, dropout_sampling=(0.05, 0.2))},
    "own loss": {"loss": LossConfig(type="faults.own_loss:LearnedTemperature")},
}
LABELED = [Example(row.anchor, "a man", label="yn"[i % 2]) for i, row in enumerate(ROWS)]


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_adds_is_part_of_what_is_resumed(make_encoder, name):
    config = TrainConfig(**{**vars(CONFIG), **VARIANTS[name]})
    whole = Recorded(make_encoder, config=config)
    resumed = Recorded(make_encoder, config=config, state=whole.states[7])
    assert torch.equal(resumed.weights, whole.weights)
    assert resumed.log(after=7) == whole.log(after=7)
    assert resumed.states[12].tensors.keys() == whole.states[12].tensors.keys()
    for key, tensor in whole.states[12].tensors.items():
        assert torch.equal(resumed.states[12].tensors[key], tensor), key


def test_a_rollback_is_part_of_what_is_resumed(make_encoder):
    scores = dict(zip(SCORES, (1.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.25), strict=True))
    config = TrainConfig(**{**vars(CONFIG), "eval": EvalConfig(every=2, patience=2)})
    whole = Recorded(make_encoder, scores=scores, config=config)
    (text,) = [event["text"] for event in whole.events if event["event"] == "guard"]
    assert "step 6: 2 evaluations without a better score; the weights of step 2 are" in text
    assert whole.report.steps == 10
    for step in (5, 7):  # before and after it
        resumed = Recorded(make_encoder, scores=scores, config=config, state=whole.states[step])
        assert torch.equal(resumed.weights, whole.weights), step
        assert resumed.log(after=step) == whole.log(after=step)


def test_a_rollback_empties_the_queue(make_encoder):
    scores = dict(zip(SCORES, (1.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.25), strict=True))
    config = TrainConfig(
        **{
            **vars(CONFIG),
            "eval": EvalConfig(every=2, patience=2),
            "loss": LossConfig(queue_size=9),
        }
    )
    whole = Recorded(make_encoder, scores=scores, config=config)
    queued = {step: len(state.tensors["queue.keys"]) for step, state in whole.states.items()}
    assert [queued[step] for step in (1, 5, 6, 7, 8)] == [3, 9, 0, 3, 6]
    resumed = Recorded(make_encoder, scores=scores, config=config, state=whole.states[7])
    assert torch.equal(resumed.weights, whole.weights)


def test_a_signal_saves_a_checkpoint_and_names_itself(make_encoder):
    states = []

    def terminate(event):
        if event.name == "step" and event.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        if event.name == "checkpoint":
            states.append(event.state.step)

    with pytest.raises(StoppedError, match="SIGTERM after step 2 of 12") as stopped:
        Recorded(make_encoder, callbacks=[terminate])
    assert stopped.value.exit_code == 143
    assert states == [1, 2]


def test_a_trainer_without_checkpoints_cannot_resume(tiny_encoder):
    with pytest.raises(UsageError, match="Checkpoints callback"):
        Trainer(tiny_encoder, TrainingData(ROWS), CONFIG).resume()


def test_a_signal_is_received_once_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        assert stop() == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_stay_as_they_are():
    asked = []

    def ask():
        with stop_signals() as stop:
            asked.append(stop())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert asked == [0]


def state(step):
    return TrainState(step, {"weight.0": torch.full((3,), float(step))}, {"evaluator": [step]})


def names(folder):
    return sorted(path.name for path in (folder / CHECKPOINTS).iterdir())


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (5, 10, 15):
        save_state(tmp_path, state(step))
    assert names(tmp_path) == ["step-00000010", "step-00000015"]
    loaded = load_state(tmp_path, pytest.fail)
    assert (loaded.step, loaded.progress) == (15, {"evaluator": [15]})
    assert torch.equal(loaded.tensors["weight.0"], torch.full((3,), 15.0))


def test_without_checkpoints_there_is_no_state(tmp_path):
    assert load_state(tmp_path, pytest.fail) is None


def damage(folder, name, how):
    path = folder / CHECKPOINTS / "step-00000010" / name
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])  # T5, T6
@pytest.mark.parametrize("name", [TENSORS, "progress.json", MANIFEST])
def test_a_damaged_checkpoint_is_skipped_and_named(tmp_path, name, how):
    save_state(tmp_path, state(5))
    save_state(tmp_path, state(10))
    damage(tmp_path, name, how)
    notes = []
    assert load_state(tmp_path, notes.append).step == 5
    assert len(notes) == 1
    assert "step-00000010" in notes[0]
    (tmp_path / CHECKPOINTS / ".step-00000007.new").mkdir()  # a killed writer's
    save_state(tmp_path, state(8))
    assert names(tmp_path) == ["step-00000005", "step-00000008"]


def test_every_byte_of_a_checkpoint_is_covered(tmp_path):
    save_state(tmp_path, state(10))
    for name in (TENSORS, "progress.json"):
        path = tmp_path / CHECKPOINTS / "step-00000010" / name
        whole = path.read_bytes()
        for i in range(len(whole)):
            path.write_bytes(whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :])
            with pytest.raises(ArtifactError, match="all 1 checkpoints are damaged") as error:
                load_state(tmp_path, lambda note: None)
            assert error.value.exit_code == 4
        path.write_bytes(whole)
    assert load_state(tmp_path, pytest.fail).step == 10


@pytest.mark.parametrize("content", ["{}", '{"format": 2}', '{"format": 1, "sha256": []}', "[1]"])
def test_a_manifest_that_names_nothing_is_no_proof(tmp_path, content):
    (tmp_path / "file").write_text("x")
    write_manifest(tmp_path)
    check_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match=MANIFEST):
        check_manifest(tmp_path)


def test_t11_a_second_process_finds_the_folder_locked_until_the_first_is_killed(tmp_path):
    ready, child = os.pipe(), os.fork()
    if child == 0:
        with lock_folder(tmp_path):
            os.write(ready[1], b"!")
            signal.pause()
        os._exit(0)
    os.read(ready[0], 1)
    with (
        pytest.raises(ResourceError, match=f"locked: process {child} ") as error,
        lock_folder(tmp_path),
    ):
        pytest.fail("both hold the lock")
    assert error.value.exit_code == 5
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with lock_folder(tmp_path):
        pass


def test_the_log_goes_back_to_where_the_checkpoint_was(tmp_path):
    log = tmp_path / "log.jsonl"
    append_log(log, {"step": 1})
    size, first = sync_log(log), log.read_bytes()
    append_log(log, {"step": 2})
    truncate_log(log, size)
    assert log.read_bytes() == first
    with pytest.raises(ArtifactError, match="lacks lines"):
        truncate_log(log, size + 1)


BEFORE = {
    "seed": 1,
    "optim": {"lr": 0.1, "batch_size": 64},
    "train": {"checkpoint_every": 5},
    "run": {"train_sha256": ["aa"], "rows": 9, "model_sha256": "m", "world_size": 1, "threads": 2},
}


@pytest.mark.parametrize(
    ("section", "name", "value", "error", "message"),
    [
        ("", "seed", 2, ConfigError, "seed: 1 at its start, 2 now"),
        ("optim", "batch_size", 32, ConfigError, "optim.batch_size: 64 at its start, 32 now"),
        ("optim", "max_steps", 7, ConfigError, "optim.max_steps: None at its start, 7 now"),
        ("run", "world_size", 2, ConfigError, "run.world_size: 1 at its start, 2 now"),
        ("run", "model_sha256", "n", ConfigError, "run.model_sha256: m at its start, n now"),
        ("run", "train_sha256", ["ab"], DataError, r"\['aa'\] at its start, \['ab'\] now"),  # D12
    ],
)
def test_t9_a_changed_run_is_refused_with_the_difference(section, name, value, error, message):
    now = {**BEFORE, section: {**BEFORE[section], name: value}} if section else {**BEFORE, name: 2}
    with pytest.raises(error, match=message):
        refuse_changes(BEFORE, now)


def test_a_setting_that_came_later_was_at_its_default():
    now = {**BEFORE, "loss": {**to_dict(TrainConfig())["loss"]}}
    assert refuse_changes(BEFORE, now) == []
    now["loss"]["temperature"] = 0.07
    with pytest.raises(ConfigError, match=r"loss.temperature: 0.05 at its start, 0.07 now"):
        refuse_changes(BEFORE, now)


def test_what_does_not_change_the_result_may_change_and_other_machines_are_named():
    now = {
        **BEFORE,
        "train": {"checkpoint_every": 9},
        "run": {**BEFORE["run"], "threads": 4, "started": "later", "command": "other"},
    }
    assert refuse_changes(BEFORE, now) == ["threads was 2 and is 4"]

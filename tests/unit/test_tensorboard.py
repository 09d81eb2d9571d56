import pytest

from simcse.train.callbacks import TensorBoard
from simcse.train.events import Evaluated, Finished, StepDone, TrainingStarted, TrainResult

RESULT = TrainResult(1, 1.0, {}, {}, 0, {}, False, 2, 0)
EVENTS = [
    TrainingStarted(steps=2, rows=4),
    StepDone(1, 0.5, 0.4, 0.1, 1.0, 1e-5, 8, 64, 0.1),
    Evaluated(1, True, {"stsb_dev": 70.0, "uniformity": None}),
    Finished(RESULT, 0, 0),
]


def test_steps_and_evaluations_become_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = TensorBoard(tmp_path)
    for event in EVENTS:
        write(event)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = set(found.Tags()["scalars"])
    assert {"step/loss", "step/lr", "step/gradient_norm", "eval/stsb_dev"} <= tags
    assert "eval/uniformity" not in tags
    (scalar,) = found.Scalars("eval/stsb_dev")
    assert (scalar.step, scalar.value) == (1, 70.0)


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.train.callbacks.find_spec", lambda name: None)
    write = TensorBoard(tmp_path)
    for event in EVENTS:
        write(event)
    assert list(tmp_path.iterdir()) == []

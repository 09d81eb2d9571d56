import pytest

from simcse.train.tensorboard import tensorboard

EVENTS = [
    {"event": "start", "steps": 2},
    {"event": "step", "step": 1, "loss": 0.5},
    {"event": "eval", "step": 1, "best": True, "stsb_dev": 70.0, "uniformity": None},
    {"event": "finish", "steps": 1},
]


def test_steps_and_looks_become_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = tensorboard(tmp_path)
    for event in EVENTS:
        write(event)
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert set(found.Tags()["scalars"]) == {"step/loss", "eval/stsb_dev"}
    (scalar,) = found.Scalars("eval/stsb_dev")
    assert (scalar.step, scalar.value) == (1, 70.0)


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("simcse.train.tensorboard.find_spec", lambda name: None)
    write = tensorboard(tmp_path)
    for event in EVENTS:
        write(event)
    assert list(tmp_path.iterdir()) == []

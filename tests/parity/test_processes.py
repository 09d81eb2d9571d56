"""Several processes give the gradient of one with the whole batch, and end together."""

import json
from pathlib import Path

import pytest

from commands import run_python
from simcse.io.checkpoints import read_safetensors

SHARES = Path(__file__).parents[1] / "faults" / "shares.py"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    words = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"the {a} and the {b}\n" for a in words for b in words))
    return path


@pytest.fixture
def shares(tiny_model_folder, text, tmp_path):
    def run(what):
        done = run_python(SHARES, what, tiny_model_folder, text, tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run


def _read(path):
    tensors = read_safetensors(path)
    return tensors["gradient"], float(tensors["loss"])


@pytest.mark.slow
def test_one_batch_has_one_gradient_however_many_processes_share_it(shares, tmp_path):
    """1x64, 2x32 and 4x16 agree; the reference's gradient is 1/2 and 1/4 of it and fails here."""
    found, stderr = shares("gradients")
    assert set(found["codes"]) == {0}, stderr
    for case, tolerance in (
        ("whole", 1e-6),
        ("pieces", 1e-6),  # gradient caching, in pieces of 100 tokens
        ("whole, fp32", 1e-5),
        ("pieces, fp32", 1e-5),
        ("few rows", 1e-6),  # with four processes one has no row
        ("variants", 1e-6),  # the published variants of the loss, on sentences alone
        ("fixed mask", 1e-6),
        ("num_encoders", 1e-6),
        ("classifier", 1e-6),  # with weights of its own
        ("classifier, few rows", 1e-6),
        ("queue", 1e-6),  # with what is in it after one step
        ("queue, few rows", 1e-6),
        ("own loss", 1e-6),  # with a parameter of its own
        ("own loss, few rows", 1e-6),
    ):
        one, loss = _read(tmp_path / f"{case}-1")
        assert one.norm() > 1e-3
        whole, _ = _read(tmp_path / "whole-1")
        is_split = case.startswith(("whole", "pieces"))
        assert not is_split or (one - whole).norm() <= tolerance * whole.norm()
        for world in (2, 4):
            shared, shared_loss = _read(tmp_path / f"{case}-{world}")
            assert shared_loss == pytest.approx(loss, rel=tolerance)
            assert (shared - one).norm() <= tolerance * one.norm()
            assert (shared / world - one).norm() > 0.4 * one.norm()


@pytest.mark.slow
def test_t10_when_one_process_is_killed_the_other_ends_and_publishes_nothing(shares):
    found, stderr = shares("lost")
    assert found["codes"] == [5, -9], stderr
    assert found["same"]
    assert "another training process is lost" in stderr


@pytest.mark.slow
def test_two_processes_are_resumed_to_the_same_bits(shares):
    found, stderr = shares("resumed")
    assert set(found["codes"]) == {0}, stderr
    assert found["killed"] == [-9, -9]
    assert found["parts"] == found["whole"]
    assert set(found["whole"]) == {"best/model.safetensors", "last/model.safetensors"}


def _train_by_two(model, text, run, *words):
    done = run_python(
        *("-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"),
        *("-m", "simcse", "train", "--model", model, "--train", text, "--output", run),
        *("optim.batch_size=8", "eval.dev=none", *words),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_leave_one_run(tiny_model_folder, text, tmp_path):
    run = tmp_path / "run"
    out = _train_by_two(tiny_model_folder, text, run, "loss.mlm_weight=0.1")
    assert out.count("8 steps") == 1
    log = (run / "log.jsonl").read_text()
    assert log.count('"event": "step"') == 8
    assert "world_size = 2" in (run / "settings.toml").read_text()


@pytest.mark.slow
def test_two_processes_train_every_seed(tiny_model_folder, text, tmp_path):
    run = tmp_path / "runs"
    _train_by_two(tiny_model_folder, text, run, "--seeds", "3", "optim.max_steps=2")
    for seed in range(3):
        log = (run / f"seed-{seed}" / "log.jsonl").read_text()
        assert log.count('"event": "step"') == 2

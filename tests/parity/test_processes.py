"""Several processes give the gradient of one with the whole batch, and end together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest

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
        arguments = [sys.executable, SHARES, what, tiny_model_folder, text, tmp_path]
        done = subprocess.run(
            list(map(str, arguments)), capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    return run


def _read(path):
    tensors = read_safetensors(path)
    return tensors["gradient"], float(tensors["loss"])


@pytest.mark.slow
def test_one_batch_has_one_gradient_however_many_processes_share_it(shares, tmp_path):
    """1x64, 2x32 and 4x16 agree; the reference's gradient is 1/2 and 1/4 of it and fails here."""
    found, told = shares("gradients")
    assert set(found["codes"]) == {0}, told
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
        in_pieces = case.startswith(("whole", "pieces"))
        assert not in_pieces or (one - whole).norm() <= tolerance * whole.norm()
        for world in (2, 4):
            shared, shared_loss = _read(tmp_path / f"{case}-{world}")
            assert shared_loss == pytest.approx(loss, rel=tolerance)
            assert (shared - one).norm() <= tolerance * one.norm()
            assert (shared / world - one).norm() > 0.4 * one.norm()


@pytest.mark.slow
def test_t10_when_one_process_is_killed_the_other_ends_and_publishes_nothing(shares):
    found, told = shares("lost")
    assert found["codes"] == [5, -9], told
    assert found["same"]
    assert "another training process is lost" in told


@pytest.mark.slow
def test_two_processes_are_resumed_to_the_same_bits(shares):
    found, told = shares("resumed")
    assert set(found["codes"]) == {0}, told
    assert found["killed"] == [-9, -9]
    assert found["parts"] == found["whole"]
    assert set(found["whole"]) == {"best/model.safetensors", "last/model.safetensors"}


def _train_by_two(model, text, run, *words):
    command = (
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"),
        *("-m", "simcse", "train", "--model", model, "--train", text, "--output", run),
        *("optim.batch_size=8", "eval.dev=none", *words),
    )
    process = subprocess.Popen(
        list(map(str, command)), stdout=PIPE, stderr=PIPE, text=True, start_new_session=True
    )
    try:
        out, told = process.communicate(timeout=500)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # torchrun ends its processes
        raise
    assert process.returncode == 0, told[-2000:]
    return out, told


@pytest.mark.slow
def test_torchrun_starts_two_processes_that_leave_one_run(tiny_model_folder, text, tmp_path):
    run = tmp_path / "run"
    out, _ = _train_by_two(tiny_model_folder, text, run, "loss.mlm_weight=0.1")
    assert out.count("8 steps") == 1
    log = (run / "log.jsonl").read_text()
    assert log.count('"event": "step"') == 8
    assert "world_size = 2" in (run / "settings.toml").read_text()


@pytest.mark.slow
def test_two_processes_part_and_meet_again_for_every_seed(tiny_model_folder, text, tmp_path):
    run = tmp_path / "runs"
    _train_by_two(tiny_model_folder, text, run, "--seeds", "3", "optim.max_steps=2")
    for seed in range(3):
        log = (run / f"seed-{seed}" / "log.jsonl").read_text()
        assert log.count('"event": "step"') == 2

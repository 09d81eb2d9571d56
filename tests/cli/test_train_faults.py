"""``simcse train`` under RELIABILITY's faults T1-T13: killed, stopped, starved, resumed."""

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from commands import PATIENCE, ended, run_python, wait_for
from simcse.io.locks import lock_folder
from simcse.io.log import read_log
from simcse.io.settings import read_toml

KILLS = Path(__file__).parents[1] / "faults" / "kills.py"
WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
FEW = ("optim.batch_size=8", "optim.max_steps=6", "train.checkpoint_every=2", "eval.dev=none")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    lines = [f"the {a} and the {b} {c}" for a in WORDS for b in WORDS[:4] for c in WORDS[5:]]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    rows = [
        f"dev\t{5 - i % 6}\tthe {a} runs\tthe {b} runs" for i, a in enumerate(WORDS) for b in WORDS
    ]
    (folder / "dev.tsv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def train(simcse, tiny_model_folder, files):
    """Run ``simcse train`` on the tiny model and the text."""

    def run(output, *arguments):
        start = ("train", "--model", tiny_model_folder, "--train", files / "text.txt")
        return simcse(*start, "--output", output, *FEW, *arguments)

    return run


def checkpoints(run):
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def undo_the_end(run):
    """Leave a finished run as a kill behind its last checkpoint but one leaves it."""
    shutil.rmtree(run / "checkpoints" / checkpoints(run)[-1])
    log = run / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))


def weights(run):
    return (run / "last" / "model.safetensors").read_bytes()


def events(run):
    return [{k: v for k, v in e.items() if k != "seconds"} for e in read_log(run / "log.jsonl")]


@pytest.mark.slow
def test_t1_killed_runs_end_with_the_same_bits(tiny_model_folder, files, tmp_path):
    arguments = (tiny_model_folder, files / "text.txt", files / "dev.tsv", tmp_path, 18, 6, 0)
    done = run_python(KILLS, *arguments)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    kills = found["kills"]
    assert len(kills) >= 24
    assert sum(kill["in_save"] for kill in kills) >= 6
    assert all(kill["checkpoints"] for kill in kills)
    assert len({kill["step"] for kill in kills}) > 5
    assert [kill for kill in kills if not kill["equal"]] == []
    assert found["expected"][0]["last"] != found["expected"][1]["last"]


def started(arguments, **options):
    command = [sys.executable, "-m", "simcse", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_t2_a_signal_leaves_a_checkpoint_that_is_resumed(
    train, tiny_model_folder, files, tmp_path, number, code
):
    run = tmp_path / "run"
    process = started(
        (
            *("train", "--model", tiny_model_folder, "--train", files / "text.txt"),
            *("--output", run, *FEW, "optim.max_steps=100000", "optim.epochs=100000"),
        )
    )
    with ended(process):
        wait_for(lambda: (run / "checkpoints").is_dir(), process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, stderr
    assert f"stopped by {signal.Signals(number).name} after step" in stderr
    assert "Traceback" not in stderr
    steps = [event["step"] for event in read_log(run / "log.jsonl") if event["event"] == "step"]
    assert checkpoints(run)[-1] == f"step-{steps[-1]:08}"
    assert (run / "last" / "model.safetensors").is_file()


def test_t3_a_full_disk_is_5_and_the_checkpoint_before_stays(train, tmp_path):
    run = tmp_path / "run"
    assert train(run).code == 0
    whole = weights(run)
    undo_the_end(run)
    before = checkpoints(run)
    size = (run / "checkpoints" / before[-1] / "state.safetensors").stat().st_size
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The kernel refuses what is longer, as on a full disk; models are shorter than checkpoints.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limit[1]))
    try:
        full = train(run, "--resume")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert full.code == 5
    assert "cannot write" in full.err
    assert "Traceback" not in full.err
    assert checkpoints(run) == before
    assert train(run, "--resume").code == 0
    assert weights(run) == whole


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_t5_t6_a_damaged_checkpoint_is_named_and_the_one_before_taken(train, tmp_path, name):
    run = tmp_path / "run"
    assert train(run).code == 0
    whole, logged = weights(run), events(run)
    log = run / "log.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    path = run / "checkpoints" / checkpoints(run)[-1] / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    resumed = train(run, "--resume")
    assert resumed.code == 0
    assert f"checkpoint {path.parent.name} is skipped" in resumed.err
    assert weights(run) == whole
    assert events(run) == logged
    for checkpoint in checkpoints(run):
        (run / "checkpoints" / checkpoint / name).unlink()
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))
    lost = train(run, "--resume")
    assert lost.code == 4
    assert "all 2 checkpoints are damaged" in lost.err


def test_t9_d12_a_changed_run_is_not_resumed(train, files, tmp_path):
    run, text = tmp_path / "run", tmp_path / "text.txt"
    assert train(run).code == 0
    undo_the_end(run)
    changed = train(run, "--resume", "optim.batch_size=4", "seed=1")
    assert changed.code == 2
    assert "optim.batch_size: 8 at its start, 4 now" in changed.err
    assert "seed: 0 at its start, 1 now" in changed.err
    text.write_text((files / "text.txt").read_text().replace("dog", "hen"))
    other = train(run, "--resume", "--train", text)
    assert other.code == 3
    assert read_toml(run / "settings.toml")["run"]["train_sha256"][0] in other.err
    assert train(run, "--resume", "train.checkpoint_every=3").code == 0


def test_resume_needs_no_other_option_and_says_what_it_does(simcse, train, tmp_path, monkeypatch):
    run = tmp_path / "run"
    first = train(run, "--resume")
    assert first.code == 0
    assert "training starts from the beginning" in first.err
    whole, logged = weights(run), events(run)
    with monkeypatch.context() as patch:
        patch.setattr("simcse.train.run.load_start", pytest.fail)  # nothing is trained
        again = simcse("train", "--output", run, "--resume")
        assert again.code == 0, again.err
        assert "is finished, nothing is left to do" in again.err
        assert "6 steps" in again.out
        assert "seed: 0 at its start, 1 now" in train(run, "--resume", "seed=1").err
    undo_the_end(run)
    resumed = simcse("train", "--output", run, "--resume")
    assert resumed.code == 0, resumed.err
    assert weights(run) == whole
    assert events(run) == logged
    assert "holds a run" in train(run).err
    nothing = simcse("train", "--output", tmp_path / "other", "--resume")
    assert nothing.code == 2
    assert "Missing option '--train'" in nothing.err


def test_what_is_missing_of_several_seeds_is_resumed(train, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(whole, "--seeds", 3).code == 0
    assert train(parts, "--seeds", 2).code == 0
    undo_the_end(parts / "seed-1")
    done = train(parts, "--seeds", 3, "--resume")
    assert done.code == 0, done.err
    assert "seed-0 is finished" in done.err
    for seed in range(3):
        assert weights(parts / f"seed-{seed}") == weights(whole / f"seed-{seed}")
    assert len({weights(whole / f"seed-{seed}") for seed in range(3)}) == 3


def test_t11_a_second_trainer_stops_at_the_lock(train, tmp_path):
    run = tmp_path / "run"
    assert train(run).code == 0
    undo_the_end(run)
    with lock_folder(run):
        for arguments in ((), ("--resume",)):
            second = train(run, *arguments)
            assert second.code == 5
            assert f"is locked: process {os.getpid()} " in second.err
    assert train(run, "--resume").code == 0


def test_t12_a_read_only_output_fails_before_the_first_step(train, tmp_path):
    run = tmp_path / "file" / "run"
    run.parent.touch()
    outcome = train(run, "--resume")
    assert outcome.code == 5
    assert "cannot write" in outcome.err


def test_a_run_is_reproduced_from_its_folder_bit_for_bit(simcse, train, files, tmp_path):
    run, text = tmp_path / "run", tmp_path / "text.txt"
    text.write_text((files / "text.txt").read_text())
    dev = f"eval.dev={files / 'dev.tsv'}"
    assert train(run, "--train", text, dev, "eval.every=3").code == 0
    same = simcse("reproduce", run)
    assert same.code == 0, same.err
    assert "reproduced bit for bit" in same.out
    assert weights(tmp_path / "run-again") == weights(run)
    path = run / "best" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))
    other = simcse("reproduce", run / "best", "--output", tmp_path / "third")
    assert other.code == 1
    assert "weights differ, best/ by up to" in other.err
    text.write_text("changed\n" * 9)
    refused = simcse("reproduce", run, "--output", tmp_path / "fourth")
    assert refused.code == 3
    assert "run.train_sha256" in refused.err
    assert not (tmp_path / "fourth").exists()


def test_a_precision_once_chosen_stays_that_run_s(simcse, train, tmp_path, monkeypatch):
    """Also where another one would be chosen now: on another machine, or by another trial."""

    def choosing(found):
        def choose(precision, device, *, width):
            return found if precision == "auto" else precision

        monkeypatch.setattr("simcse.train.run.choose_precision", choose)

    run = tmp_path / "run"
    choosing("bf16")
    assert train(run, "precision=auto").code == 0
    whole = weights(run)
    undo_the_end(run)
    choosing("fp32")
    resumed = simcse("train", "--output", run, "--resume")
    assert resumed.code == 0, resumed.err
    assert weights(run) == whole
    same = simcse("reproduce", run)
    assert same.code == 0, same.err
    assert "reproduced bit for bit" in same.out
    assert train(tmp_path / "other", "precision=auto").code == 0
    assert weights(tmp_path / "other") != whole
    for name, precision in (("run", "bf16"), ("run-again", "bf16"), ("other", "fp32")):
        said = json.loads((tmp_path / name / "last" / "simcse.json").read_text())["provenance"]
        assert (said["precision"], said["settings"]["precision"]) == (precision, "auto")


def test_a_model_says_how_it_came_about(simcse, train, files, tmp_path):
    run = tmp_path / "run"
    assert train(run, "seed=7").code == 0
    said = json.loads((run / "best" / "simcse.json").read_text())["provenance"]
    assert said["command"].startswith("simcse train --model ")
    assert said["command"].endswith("seed=7")
    assert said["train"] == ["text.txt"]
    assert said["settings"]["seed"] == 7
    text = (files / "text.txt").read_bytes()
    assert said["train_sha256"] == [hashlib.sha256(text).hexdigest()]
    assert set(said["versions"]) >= {"python", "torch", "transformers"}
    assert len(said["code_sha256"]) == len(said["model_sha256"]) == 64
    assert said["hardware"]["cores"] == os.cpu_count()
    assert said["rows"] == 96

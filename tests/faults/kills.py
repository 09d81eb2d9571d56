"""Kill training runs by SIGKILL at random points, resume them, and say how they ended, as JSON.

    python kills.py MODEL TEXT DEV FOLDER RANDOM IN_SAVES SEED

RANDOM kills come at a random length of the log, after the first checkpoint and before the end;
IN_SAVES come while a checkpoint is being written. Every run is a process of its own, forked from
this one, so that it need not import torch again: this one runs one thread and trains nothing.
"""

import hashlib
import json
import os
import random
import re
import signal
import sys
import time
import traceback
from pathlib import Path

import scipy.stats  # noqa: F401 - imported before the forks, because a run would import it
import torch
import torch.utils.tensorboard  # noqa: F401

import simcse.report.runs  # noqa: F401
from simcse.config import build, parse_overrides
from simcse.model.encoder import SentenceEncoder
from simcse.train.run import train
from simcse.train.settings import TrainConfig

SETTINGS = (
    *("optim.batch_size=8", "optim.max_steps=24", "optim.lr=1e-3", "loss.mlm_weight=0.1"),
    *("train.checkpoint_every=3", "eval.every=10", "train.threads=1"),
)
VARIANTS = {
    "fp32": ("precision=fp32",),
    "bf16 and two num_encoders": ("precision=bf16", "model.num_encoders=2"),
    "queue": ("precision=fp32", "loss.queue_size=20", "loss.dropout_sampling=0.05,0.2"),
    "own loss": ("precision=bf16", "loss.type=own_loss:LearnedTemperature"),
}


class Runs:
    """Starts runs of one setting in forked processes."""

    def __init__(self, model, text, dev, variant):
        overrides = (*SETTINGS, f"eval.dev={dev}", *VARIANTS[variant])
        self.config = build(TrainConfig, parse_overrides(overrides))
        self.model, self.text = model, Path(text)

    def start(self, folder, *, resume):
        child = os.fork()
        if child:
            return child
        try:
            train(self.text, model=self.model, output=folder, config=self.config, resume=resume)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
            traceback.print_exc()
            os._exit(1)

    def finish(self, folder, *, resume):
        _, status = os.waitpid(self.start(folder, resume=resume), 0)
        if status:
            sys.exit(f"the run in {folder} ended with status {status}")
        return outcome(folder)


def outcome(folder):
    """What two runs must have in common: weights, and the log but for times."""
    hashes = {
        name: hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        for name in ("best", "last")
    }
    text = re.sub(r'"seconds": [^,}]+', "", (folder / "log.jsonl").read_text())
    return {**hashes, "log": hashlib.sha256(text.encode()).hexdigest()}


def checkpoints(folder):
    home = folder / "checkpoints"
    return sorted(path.name for path in home.iterdir()) if home.is_dir() else []


def whole(folder):
    return [name for name in checkpoints(folder) if not name.startswith(".")]


def wait_until(child, reached):
    """Poll; ``False`` if the child ended before."""
    while not reached():
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0002)
    return True


def kill(runs, folder, point):
    """Start a run and kill it at ``point``; ``None`` if the point was missed."""
    child = runs.start(folder, resume=False)
    if not wait_until(child, lambda: bool(whole(folder))) or not wait_until(child, point):
        return None
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    finished = '"event": "finish"' in (folder / "log.jsonl").read_text()
    if not os.WIFSIGNALED(status) or finished:
        return None
    steps = (folder / "log.jsonl").read_text().count('"event": "step"')
    return {
        "step": steps,
        "checkpoints": whole(folder),
        "in_save": any(name.endswith(".new") for name in checkpoints(folder)),
    }


def log_reaches(folder, size):
    log = folder / "log.jsonl"
    return lambda: log.stat().st_size >= size


def save_begins(folder):
    return lambda: any(name.endswith(".new") for name in checkpoints(folder))


def main(model, text, dev, folder, random_kills, kills_in_saves, seed):
    random.seed(seed)
    torch.set_num_threads(1)
    SentenceEncoder.load(model)
    folder, kills = Path(folder), []
    variants = [Runs(model, text, dev, variant) for variant in VARIANTS]
    expected = [
        runs.finish(folder / f"whole-{number}", resume=False)
        for number, runs in enumerate(variants)
    ]
    length = (folder / "whole-0" / "log.jsonl").stat().st_size
    attempt = 0
    while len(kills) < int(random_kills) + int(kills_in_saves):
        attempt += 1
        run, variant = folder / f"run-{attempt}", attempt % len(variants)
        wants_save = sum(found["in_save"] for found in kills) < int(kills_in_saves)
        point = save_begins(run) if wants_save else log_reaches(run, random.uniform(0, length))
        found = kill(variants[variant], run, point)
        if found and (found["in_save"] or not wants_save):
            ended = variants[variant].finish(run, resume=True)
            kills.append({**found, "equal": ended == expected[variant], "attempt": attempt})
    print(json.dumps({"kills": kills, "attempts": attempt, "expected": expected}))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Several training processes on this machine, forked from one that imported torch; prints JSON.

python shares.py gradients|lost|resumed MODEL TEXT FOLDER
"""

import copy
import hashlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

import torch
import torch.utils.tensorboard  # noqa: F401 - a run would import it after the fork

from simcse.config import build, parse_overrides
from simcse.errors import SimcseError
from simcse.io.checkpoints import write_safetensors
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead
from simcse.train.classifier import PairClassifier
from simcse.train.objective import Objective
from simcse.train.optim import OptimConfig, Optimizer
from simcse.train.processes import join_processes
from simcse.train.queue import MomentumQueue
from simcse.train.run import train_run
from simcse.train.settings import TrainConfig

WORDS = ["man", "woman", "dog", "cat", "guitar", "run", "eat", "play"]
ROWS = [
    Example(f"the {a} {b}", f"a {b} {a}", (f"the {b}",) * (i % 3))
    for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)
]
ALONE = [Example(row.anchor) for row in ROWS[:20]]
LABELED = [
    Example(f"the {a}", f"a {b}", label=label)
    for a, b, label in zip(WORDS, WORDS[1:], "nynnyyn", strict=False)
]
PLAIN = LossConfig(hard_negative_weight=2.0, temperature=0.1, mlm_weight=0.3)
VARIANTS = LossConfig(
    form="debiased",
    matryoshka=(8,),
    dropout_free_negatives=True,
    repetition=0.5,
    dimension_weight=0.1,
    mlm_weight=0.3,
)
QUEUE = LossConfig(queue=9, dropout_sampling=(0.05, 0.1, 0.2), temperature=0.1)
CLASSIFIER = LossConfig(form="classifier", mlm_weight=0.3)
FIXED = LossConfig(fixed_mask=True, similarity="dot", temperature=1.0)
WHOLE = 10**6  # tokens
SETTINGS = (
    *("optim.batch_size=8", "optim.max_steps=12", "eval.dev=none", "eval.every=4"),
    *("train.checkpoint_every=2", "train.timeout=60", "train.threads=1", "precision=fp32"),
)


def fork(world, work):
    """Run ``work(rank)`` in ``world`` processes that can join; return their ids."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), **address}
            os._exit(guarded(work, rank))
        children.append(child)
    return children


def guarded(work, rank):
    try:
        work(rank)
    except SimcseError as error:
        print(f"rank {rank}: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's code
        traceback.print_exc()
        return 1
    return 0


def wait(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def additions(encoder, config, *, num_encoders):
    """Make what a setting adds to the encoder, in its number format."""
    torch.manual_seed(0)
    added, dtype = {}, next(encoder.parameters()).dtype
    if config.mlm_weight:
        added["mlm_head"] = MlmHead(encoder.backbone).to(dtype)
    if num_encoders:
        added["second"] = copy.deepcopy(encoder)
    if config.form == "classifier":
        added["classifier"] = PairClassifier(encoder.dimensions, "ny").to(dtype)
    if config.queue:
        added["queue"] = MomentumQueue(encoder, config.queue)
    return added


def gradients(model, text, folder):
    """Save the summed gradient of one batch for several numbers of processes and formats."""

    def one(rank, world, name, dtype, rows, chunk, config):
        with join_processes(60) as processes:
            encoder = SentenceEncoder.load(model, precision="fp32").to(dtype).train()
            for table in (m for m in encoder.modules() if isinstance(m, torch.nn.Embedding)):
                table._forward_hooks.clear()  # which would round its output to fp32
            encoder.backbone.set_dropout(0.1)
            options = {"seed": 7, "micro_batch_tokens": chunk, "processes": processes}
            added = additions(encoder, config, num_encoders=name == "num_encoders")
            objective = Objective(encoder, config, **options, **added).train()
            optim = OptimConfig(clip_norm=0)
            optimizer = Optimizer(objective.parameters(), optim, processes=processes)
            if config.queue:
                objective.backward(rows[::-1], 2)
                objective.zero_grad()
            loss = objective.backward(rows, 3, collect=optimizer.collect)
            optimizer.gradient_norm()
            if rank == 0:
                parts = [m.grad.flatten().double() for m in optimizer.masters if m.grad is not None]
                found = {"loss": loss.total.detach().double(), "gradient": torch.cat(parts)}
                write_safetensors(folder / f"{name}-{world}", found)

    cases = {
        "whole": (torch.float64, ROWS, WHOLE, PLAIN),
        "pieces": (torch.float64, ROWS, 100, PLAIN),
        "whole, fp32": (torch.float32, ROWS, WHOLE, PLAIN),
        "pieces, fp32": (torch.float32, ROWS, 100, PLAIN),
        "few rows": (torch.float64, ROWS[:3], WHOLE, PLAIN),
        "variants": (torch.float64, ALONE, 100, VARIANTS),
        "num_encoders": (torch.float64, ROWS[:20], 100, PLAIN),
        "classifier": (torch.float64, LABELED, 20, CLASSIFIER),
        "classifier, few rows": (torch.float64, LABELED[:3], 20, CLASSIFIER),
        "queue": (torch.float64, ROWS[:7], 50, QUEUE),
        "queue, few rows": (torch.float64, ALONE[:3], 50, QUEUE),
        "fixed mask": (torch.float64, ALONE[:3], 100, FIXED),
    }
    codes = []
    for name, case in cases.items():
        for world in (1, 2, 4):
            codes += wait(fork(world, lambda rank, w=world, n=name, c=case: one(rank, w, n, *c)))
    return {"codes": codes}


def start(model, text, output, *, resume=False, extra=()):
    config = build(TrainConfig, parse_overrides((*SETTINGS, *extra)))
    return fork(2, lambda rank: train_run(model, [text], output, config, resume=resume))


def published(output):
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.glob("*/model.safetensors"))
    }


def until_checkpoint(output):
    while not any((output / "checkpoints").glob("step-*")):
        time.sleep(0.001)


def lost(model, text, folder):
    """Kill one of two processes; say how the other ended, how soon, and what it published."""
    output = folder / "lost"
    endless = ("optim.max_steps=100000", "optim.epochs=100000", "eval.every=100000")
    children = start(model, text, output, extra=endless)
    until_checkpoint(output)
    before = published(output)
    os.kill(children[1], signal.SIGKILL)
    began = time.monotonic()
    codes = wait(children)
    same = published(output) == before
    return {"codes": codes, "seconds": time.monotonic() - began, "same": same}


def resumed(model, text, folder):
    """Kill both of two processes, resume them, and compare with two that were not killed."""
    whole, parts = folder / "whole", folder / "parts"
    codes = wait(start(model, text, whole))
    children = start(model, text, parts)
    until_checkpoint(parts)
    for child in children:
        os.kill(child, signal.SIGKILL)
    killed = wait(children)
    codes += wait(start(model, text, parts, resume=True))
    return {"codes": codes, "killed": killed, "whole": published(whole), "parts": published(parts)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    name, model, text, folder = sys.argv[1:]
    SentenceEncoder.load(model)
    found = {"gradients": gradients, "lost": lost, "resumed": resumed}[name]
    print(json.dumps(found(model, Path(text), Path(folder))))  # noqa: T201

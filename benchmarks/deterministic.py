"""The cost of ``train.deterministic``: the same training steps with and without it, in turn.

From this folder, with any file of sentences:

    python deterministic.py mini wiki.txt results/deterministic-mini.json
"""

import itertools
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from race import System, race, ratios
from race_report import agreements, race_results
from simcse.io.records import read_texts
from simcse.io.results import write_results
from simcse.report.versions import versions
from train import steps

ROUNDS, BATCH, BATCHES, MAX_LENGTH = 15, 64, 20, 32


def step(model: str, sentences: Sequence[str], *, deterministic: bool) -> Callable[[], float]:
    """Take a step of unsupervised training as `benchmarks/train.py` does."""
    torch.use_deterministic_algorithms(deterministic)
    rows = [[sentence] for sentence in sentences]
    more = {"precision": "auto"}
    return steps("ours", more, model, rows, batch=BATCH, max_length=MAX_LENGTH, dropout=None)


def main(model: str, source: str, output: str) -> None:
    """Race the two and write every round."""
    texts = list(itertools.islice(read_texts(source), BATCH * BATCHES))
    timings = race(
        [
            System(name, "deterministic:step", {**task, "model": model, "sentences": texts})
            for name, task in (
                ("default", {"deterministic": False}),
                ("train.deterministic=true", {"deterministic": True}),
            )
        ],
        rounds=ROUNDS,
        log=print,
    )
    found = ratios(*timings)
    low, high = min(found), max(found)
    print(f"{statistics.median(found):.3f} times as long ({low:.3f} to {high:.3f})")
    agreement = agreements(timings, lambda first, second: second - first)
    title = f"One step on {BATCH} sentences, twice each, of at most {MAX_LENGTH} tokens"
    write_results(
        Path(output),
        {
            "title": title,
            "model": Path(model).name,
            "rounds": ROUNDS,
            "versions": versions(),
            "systems": race_results(timings, agreement),
        },
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

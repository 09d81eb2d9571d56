"""Which look each way of choosing keeps, and what it scores.

After a run of several seeds with ``eval.dev=stsb,heldout eval.save_all=true``:

    python choice.py runs/unsup results/choice-unsup.json [--tests]

Prints Markdown. With ``--tests`` the looks are measured on the 7 STS test tasks, too; those
measured before are taken from the JSON file, so an interrupted call goes on.
"""

import functools
import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from simcse import SentenceEncoder
from simcse.evaluate.sts import evaluate_sts
from simcse.io.benchmarks import load_sts_task
from simcse.io.log import read_log
from simcse.io.results import read_results, write_results
from simcse.io.settings import read_toml
from simcse.model.precision import Precision
from simcse.report.seeds import compare_seeds, differences_table, seeds_table
from simcse.report.tables import to_markdown
from simcse.report.versions import versions
from simcse.train.run import finished_report

TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb-test", "sickr-test")
PRECISION: Precision = "bf16"
Look = Mapping[str, Any]
WAYS: Mapping[str, Callable[[Sequence[Look]], Look]] = {
    "STS-B dev": lambda looks: max(looks, key=lambda look: look["stsb_dev"]),
    "held-out loss": lambda looks: min(looks, key=lambda look: look["heldout_loss"]),
    "the last step": lambda looks: looks[-1],
}


def score(model: Path) -> dict[str, float | None]:
    """Measure a model on the test tasks: Spearman x100, one correlation a task."""
    encoder = SentenceEncoder.load(model, precision=PRECISION)
    encode = functools.partial(encoder.encode, truncation="truncate")
    return {name: evaluate_sts(encode, load_sts_task(name)).spearman() for name in TASKS}


def chosen_looks(run: Path) -> dict[str, Look]:
    """Return the look that each way of choosing keeps."""
    looks = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
    return {way: choose(looks) for way, choose in WAYS.items()}


def main(folder: str, output: str, tests: str = "") -> None:
    """Measure what is missing, write it, and print a table a way and the comparisons."""
    runs = {
        int(run.name[5:]): run
        for run in sorted(Path(folder).glob("seed-*"))
        if finished_report(run / "log.jsonl")
    }
    looks = {seed: chosen_looks(run) for seed, run in runs.items()}
    settings = {seed: read_toml(run / "settings.toml") for seed, run in runs.items()}
    found = read_results(output) if Path(output).exists() else {"scores": {}}
    found["code_sha256"] = sorted({each["run"]["code_sha256"] for each in settings.values()})
    found |= {"versions": versions(), "precision": PRECISION, "looks": looks}
    for way, seed in itertools.product(WAYS, looks):  # what most is known by first
        step = looks[seed][way]["step"]
        name = f"seed-{seed}/step-{step}"
        if tests == "--tests" and name not in found["scores"]:
            found["scores"][name] = score(runs[seed] / "looks" / f"step-{step:08}")
            write_results(output, found)
            print(f"measured {name}", file=sys.stderr)
    write_results(output, found)
    tables = {way: _runs(looks, found["scores"], way) for way in WAYS}
    for way, table in tables.items():
        print(f"\nChosen by {way}\n\n{to_markdown(seeds_table(table))}")
    for way in ("STS-B dev", "held-out loss"):
        pairs = compare_seeds(tables["the last step"], tables[way])
        print(f"\nFirst: the last step. Second: {way}\n\n{to_markdown(differences_table(pairs))}")


def _runs(
    looks: Mapping[int, Any], scores: Mapping[str, Any], way: str
) -> dict[int, dict[str, dict[str, float]]]:
    runs = {}
    for seed, chosen in looks.items():
        look = chosen[way]
        metrics = {"step": look["step"], "STS-B dev": look["stsb_dev"]}
        tests = scores.get(f"seed-{seed}/step-{look['step']}")
        if tests:
            metrics |= tests | {"mean of 7": mean(tests.values())}
        runs[seed] = {"start": {}, "best": metrics}
    return runs


if __name__ == "__main__":
    main(*sys.argv[1:])

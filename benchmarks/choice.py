"""Which checkpoint each selection criterion chooses, and its test scores.

After a run of several seeds with ``eval.dev=stsb,heldout eval.save_all=true``:

    python choice.py runs/unsup results/choice-unsup.json [--tests]

Prints Markdown. With ``--tests`` the checkpoints are also evaluated on the 7 STS test tasks. The
JSON file keeps finished evaluations, so that an interrupted call continues.
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
from simcse.train.run import read_result

TASKS = ("sts12", "sts13", "sts14", "sts15", "sts16", "stsb-test", "sickr-test")
PRECISION: Precision = "bf16"
Evaluation = Mapping[str, Any]
CRITERIA: Mapping[str, Callable[[Sequence[Evaluation]], Evaluation]] = {
    "STS-B dev": lambda rows: max(rows, key=lambda row: row["stsb_dev"]),
    "held-out loss": lambda rows: min(rows, key=lambda row: row["heldout_loss"]),
    "the last step": lambda rows: rows[-1],
}


def score(model: Path) -> dict[str, float | None]:
    """Evaluate a model on the test tasks: Spearman x100, one correlation a task."""
    encoder = SentenceEncoder.load(model, precision=PRECISION)
    encode = functools.partial(encoder.encode, truncation="truncate")
    return {name: evaluate_sts(encode, load_sts_task(name)).spearman() for name in TASKS}


def chosen_evaluations(run: Path) -> dict[str, Evaluation]:
    """Return the evaluation that each criterion chooses."""
    rows = [event for event in read_log(run / "log.jsonl") if event["event"] == "eval"]
    return {criterion: choose(rows) for criterion, choose in CRITERIA.items()}


def main(folder: str, output: str, tests: str = "") -> None:
    """Evaluate what is missing, write it, and print a table per criterion and comparisons."""
    runs = {
        int(run.name[5:]): run
        for run in sorted(Path(folder).glob("seed-*"))
        if read_result(run / "log.jsonl")
    }
    chosen = {seed: chosen_evaluations(run) for seed, run in runs.items()}
    settings = {seed: read_toml(run / "settings.toml") for seed, run in runs.items()}
    found = read_results(output) if Path(output).exists() else {"scores": {}}
    found["code_sha256"] = sorted({each["run"]["code_sha256"] for each in settings.values()})
    found |= {"versions": versions(), "precision": PRECISION, "evaluations": chosen}
    for criterion, seed in itertools.product(CRITERIA, chosen):
        step = chosen[seed][criterion]["step"]
        name = f"seed-{seed}/step-{step}"
        if tests == "--tests" and name not in found["scores"]:
            found["scores"][name] = score(runs[seed] / "evaluations" / f"step-{step:08}")
            write_results(output, found)
            print(f"evaluated {name}", file=sys.stderr)
    write_results(output, found)
    tables = {each: _runs(chosen, found["scores"], each) for each in CRITERIA}
    for criterion, table in tables.items():
        print(f"\nChosen by {criterion}\n\n{to_markdown(seeds_table(table))}")
    for criterion in ("STS-B dev", "held-out loss"):
        pairs = compare_seeds(tables["the last step"], tables[criterion])
        text = to_markdown(differences_table(pairs))
        print(f"\nFirst: the last step. Second: {criterion}\n\n{text}")


def _runs(
    chosen: Mapping[int, Any], scores: Mapping[str, Any], criterion: str
) -> dict[int, dict[str, dict[str, float]]]:
    runs = {}
    for seed, by_criterion in chosen.items():
        row = by_criterion[criterion]
        metrics = {"step": row["step"], "STS-B dev": row["stsb_dev"]}
        tests = scores.get(f"seed-{seed}/step-{row['step']}")
        if tests:
            metrics |= tests | {"mean of 7": mean(tests.values())}
        runs[seed] = {"start": {}, "best": metrics}
    return runs


if __name__ == "__main__":
    main(*sys.argv[1:])

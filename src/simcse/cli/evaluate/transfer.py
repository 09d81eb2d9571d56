"""``simcse evaluate transfer``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.evaluate.shared import (
    TRANSFER_TASKS,
    measure,
    measuring_options,
    present,
    split_tasks,
)
from simcse.cli.options import Command

if TYPE_CHECKING:
    from simcse.evaluate.classifier import Protocol
    from simcse.io.benchmarks import TransferTask


def protocol_options(command: Command) -> Command:
    """Add what says how the transfer classifiers are trained."""
    for option in (
        click.option(
            "--solver",
            type=click.Choice(["senteval", "lbfgs"]),
            default="senteval",
            show_default=True,
            help="SentEval's classifier, or scikit-learn's, which is not the paper's protocol.",
        ),
        click.option(
            "--fast",
            is_flag=True,
            help="SentEval's quick variant: 5 folds, RMSprop, batch 128; for trying things out.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option(
    "--tasks", default=",".join(TRANSFER_TASKS), show_default=True, help="Comma-separated."
)
@click.option(
    "--text",
    type=click.Choice(["senteval", "natural"]),
    default="senteval",
    show_default=True,
    help="Text as SentEval tokenizes it, whose lengths settle the folds, or natural text.",
)
@protocol_options
@measuring_options
def transfer(
    tasks: str,
    text: str,
    fast: bool,
    solver: str,
    data: Path | None,
    form: str,
    output: Path | None,
    **measuring: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Accuracy of a linear classifier on frozen embeddings, on SentEval's 7 transfer tasks.

    SentEval's protocol to the letter: nested 10-fold cross-validation, seed 1111, L2 from 1e-5
    to 1e-2, Adam, batch 64, early stop. Its hundreds of small fits train together.

    \b
    Examples:
      simcse evaluate transfer --fast
      simcse evaluate transfer runs/nli/best mini --tasks cr,trec,mrpc
      simcse evaluate transfer mini --solver lbfgs --output transfer
    """
    from simcse.evaluate.measure import Plan
    from simcse.report.evaluation import Evaluation
    from simcse.report.versions import versions

    protocol = choose_protocol(fast, solver)
    loaded = load_transfer(split_tasks(tasks, TRANSFER_TASKS), text=text, folder=data)
    evaluation = Evaluation(
        measure(Plan(transfer=loaded, protocol=protocol), **measuring),
        protocol=describe(protocol),
        data=files_of(loaded),
        versions=versions(),
        options={"text": text, "fast": fast, "solver": solver},
        notes=[note for task in loaded for note in task.notes],
    )
    present(evaluation, form=form, output=output, json_tables=1)


def load_transfer(names: list[str], *, text: str, folder: Path | None) -> list["TransferTask"]:
    """Read transfer tasks; all are checked before anything is computed."""
    from simcse.io.benchmarks import load_transfer_task

    return [load_transfer_task(name, text=text, folder=folder) for name in names]  # type: ignore[arg-type]


def files_of(tasks: list["TransferTask"]) -> dict[str, str]:
    """Return each file's SHA-256 by its name."""
    return {part.path.name: part.sha256 for task in tasks for part in task.splits.values()}


def choose_protocol(fast: bool, solver: str) -> "Protocol":
    """Return the protocol the options ask for."""
    from dataclasses import replace

    from simcse.evaluate.classifier import FAST, FULL

    chosen = FAST if fast else FULL
    return replace(chosen, solver="lbfgs") if solver == "lbfgs" else chosen


def describe(protocol: "Protocol") -> str:
    """Name a protocol as tables and reports do."""
    from simcse.evaluate.classifier import FULL

    if protocol.solver == "lbfgs":
        return f"L-BFGS to the end, {protocol.folds} folds (not SentEval's classifier)"
    if protocol == FULL:
        return "SentEval's full protocol (10 folds, Adam)"
    return "SentEval's fast protocol (5 folds, RMSprop)"

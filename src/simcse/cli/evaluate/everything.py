"""``simcse evaluate all``."""

from pathlib import Path
from typing import Any

import click

from simcse.cli.evaluate.shared import (
    STS_TASKS,
    TRANSFER_TASKS,
    measure,
    measuring_options,
    present,
)
from simcse.cli.evaluate.sts import load_sts, sts_options
from simcse.cli.evaluate.transfer import (
    choose_protocol,
    describe,
    files_of,
    load_transfer,
    protocol_options,
)


@click.command("all")
@click.option(
    "--text",
    type=click.Choice(["natural", "senteval"]),
    default="natural",
    show_default=True,
    help="Of the STS tasks; transfer always takes SentEval's, as its folds do.",
)
@sts_options
@protocol_options
@measuring_options
def everything(
    text: str,
    split: str,
    sickr: str,
    aggregation: str,
    fast: bool,
    solver: str,
    data: Path | None,
    form: str,
    output: Path | None,
    **measuring: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """STS, transfer and geometry of one or more models, from one pass of encoding.

    With --output: one page that opens anywhere (report.html), and the same as results.json,
    results.md and results.tex. Every further model is compared with the first.

    \b
    Examples:
      simcse evaluate all mini --fast --output evaluation
      simcse evaluate all mini mini-whitened --output before-and-after
      simcse evaluate all --encoder mine:encode --output mine
    """
    from simcse.evaluate.measure import Plan
    from simcse.report.evaluation import Evaluation
    from simcse.report.versions import versions

    rated = load_sts(list(STS_TASKS), split=split, sickr=sickr, text=text, folder=data)
    labeled = load_transfer(list(TRANSFER_TASKS), text="senteval", folder=data)
    protocol = choose_protocol(fast, solver)
    plan = Plan(sts=rated, transfer=labeled, protocol=protocol, geometry=rated["stsb"])
    evaluation = Evaluation(
        measure(plan, **measuring),
        aggregation=aggregation,  # type: ignore[arg-type]  # click.Choice allows no other
        protocol=describe(protocol),
        gold={name: task.scores for name, task in rated.items()},
        data={
            **{Path(task.path).name: task.sha256 for task in rated.values()},
            **files_of(labeled),
        },
        versions=versions(),
        options={"split": split, "sickr": sickr, "text": text, "fast": fast, "solver": solver},
        notes=[
            *(note for task in rated.values() for note in task.notes),
            *(note for task in labeled for note in task.notes),
        ],
    )
    present(evaluation, form=form, output=output)

"""``simcse evaluate sts``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.evaluate.shared import STS_TASKS, measure, measuring_options, present, split_tasks
from simcse.cli.options import Command
from simcse.cli.output import show

if TYPE_CHECKING:
    from simcse.io.benchmarks import StsTask


def sts_options(command: Command) -> Command:
    """Add what says which STS data is used and how its subsets are put together."""
    for option in (
        click.option(
            "--aggregation",
            type=click.Choice(["all", "mean", "wmean"]),
            default="all",
            show_default=True,
            help="One correlation a task (the paper, MTEB), or the mean over its subsets.",
        ),
        click.option(
            "--sickr",
            type=click.Choice(["test", "all"]),
            default="test",
            show_default=True,
            help="The 4,927 test pairs as the paper, or all 9,927 as MTEB.",
        ),
        click.option(
            "--split",
            type=click.Choice(["test", "dev"]),
            default="test",
            show_default=True,
            help="Of STS-B and SICK-R; the other sets have no dev part.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--tasks", default=",".join(STS_TASKS), show_default=True, help="Comma-separated.")
@click.option(
    "--text",
    type=click.Choice(["natural", "senteval"]),
    default="natural",
    show_default=True,
    help="Natural text, or as SentEval tokenizes it (what the paper fed the encoder).",
)
@sts_options
@click.option("--details", is_flag=True, help="Print every task by subset, Spearman and Pearson.")
@measuring_options
def sts(
    tasks: str,
    split: str,
    sickr: str,
    text: str,
    aggregation: str,
    details: bool,
    data: Path | None,
    form: str,
    output: Path | None,
    **measuring: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Spearman correlation on the 7 STS tasks, as the paper computes it.

    Several models are put side by side, and compared with the first by a paired bootstrap.
    Alignment and uniformity follow the paper's protocol: STS-B pairs rated above 4, and all STS-B
    sentences, of the split that is evaluated.

    \b
    Examples:
      simcse evaluate sts
      simcse evaluate sts runs/nli/best mini --format markdown
      simcse evaluate sts bert-base-uncased --pooling mean_first_last --aggregation wmean
      simcse evaluate sts mini --split dev --tasks stsb
    """
    from simcse.evaluate.measure import Plan
    from simcse.report.evaluation import Evaluation
    from simcse.report.evaluation_tables import subset_table
    from simcse.report.versions import versions

    loaded = load_sts(
        split_tasks(tasks, STS_TASKS), split=split, sickr=sickr, text=text, folder=data
    )
    plan = Plan(sts=loaded, geometry=loaded.get("stsb"))
    evaluation = Evaluation(
        measure(plan, **measuring),
        aggregation=aggregation,  # type: ignore[arg-type]  # click.Choice allows no other
        gold={name: task.scores for name, task in loaded.items()},
        data={Path(task.path).name: task.sha256 for task in loaded.values()},
        versions=versions(),
        options={"split": split, "sickr": sickr, "text": text},
        notes=[note for task in loaded.values() for note in task.notes],
    )
    present(evaluation, form=form, output=output, json_tables=1)
    for task in loaded if details else ():
        show(subset_table(evaluation.models, task), form)


def load_sts(
    names: list[str], *, split: str, sickr: str, text: str, folder: Path | None
) -> dict[str, "StsTask"]:
    """Read STS tasks by the name of their row; all are checked before anything is computed."""
    from simcse.io.benchmarks import load_sts_task

    parts = {"stsb": f"stsb-{split}", "sickr": f"sickr-{'all' if sickr == 'all' else split}"}
    return {
        name: load_sts_task(parts.get(name, name), text=text, folder=folder)  # type: ignore[arg-type]
        for name in names
    }

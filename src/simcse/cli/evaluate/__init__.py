"""``simcse evaluate``: one file a kind of measure."""

from pathlib import Path

import click

from simcse.cli.evaluate.everything import everything
from simcse.cli.evaluate.geometry import geometry
from simcse.cli.evaluate.isotropy import isotropy
from simcse.cli.evaluate.known import check_known_answers
from simcse.cli.evaluate.retrieval import retrieval
from simcse.cli.evaluate.shared import data_option
from simcse.cli.evaluate.sts import sts
from simcse.cli.evaluate.transfer import transfer


@click.group(invoke_without_command=True)
@click.option(
    "--known-answers",
    is_flag=True,
    help="Measure all-MiniLM-L6-v2 and compare each task with what it is known to score.",
)
@data_option
@click.pass_context
def evaluate(context: click.Context, known_answers: bool, data: Path | None) -> None:
    """Measure models on known tasks.

    \b
    Examples:
      simcse evaluate sts mini runs/mine/best
      simcse evaluate all mini --fast --output evaluation
      simcse evaluate --known-answers
    """
    if known_answers and context.invoked_subcommand is None:
        check_known_answers(data)
    elif known_answers or data:
        raise click.UsageError("--known-answers [--data FOLDER] goes alone, without a command")
    elif context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (sts, transfer, geometry, isotropy, retrieval, everything):
    evaluate.add_command(command)

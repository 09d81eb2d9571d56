"""``simcse quickstart``: the first five minutes."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.options import count_option, model_option, seed_option

if TYPE_CHECKING:
    from simcse.quickstart.run import Answers
    from simcse.train.events import Event

WIDTH = 96  # of the answers


@click.command("quickstart")
@model_option
@click.option(
    "--output",
    default="quickstart",
    type=click.Path(path_type=Path),
    help="Folder to write, in place of that of an earlier quickstart.",
)
@count_option(
    "--sentences", "Number of sentences to train on and to search in.", default=4096, minimum=2
)
@seed_option("the batch order, the dropout and the interval")
def quickstart_command(model: str, output: Path, sentences: int, seed: int) -> None:
    """Train, evaluate and search, on the documentation that comes with Python.

    Nothing is downloaded, and two cores need less than five minutes. The command trains
    unsupervised SimCSE from the bundled model, shows the change on docstrings held out from
    training, and answers three questions. The output folder holds the models best/ and last/,
    embeddings.npy of sentences.txt, log.jsonl, settings.toml, results.json and report.html.

    \b
    Examples:
      simcse quickstart
      simcse quickstart --sentences 1024 --output small
    """
    from simcse.cli.output import show
    from simcse.quickstart.report import conclusions, metrics_table, next_commands
    from simcse.quickstart.run import quickstart

    with ExitStack() as bars:
        result = quickstart(
            output, model=model, sentences=sentences, seed=seed, callback=_Progress(bars)
        )
    show(metrics_table(result), "table")
    click.echo("\n".join(["", *conclusions(result), "", *_format_answers(result.answers)]))
    click.echo(f"{result.seconds:.0f} seconds in total. Open {output / 'report.html'}\n")
    click.echo("\n  ".join(["Commands to try next:", *next_commands(output)]))


class _Progress:
    """Headings of the stages on stderr, and the bar of `simcse train` during training."""

    def __init__(self, bars: ExitStack) -> None:
        self.bars = bars

    def __call__(self, event: "Event") -> None:
        from simcse.quickstart.run import StageStarted
        from simcse.train.events import TrainingStarted
        from simcse.train.progress import ProgressBar

        if isinstance(event, StageStarted):
            self.bars.close()
            click.secho(event.title, err=True, bold=True)
            return
        if isinstance(event, TrainingStarted):
            self.bar = self.bars.enter_context(ProgressBar())
        self.bar(event)


def _format_answers(answers: "Answers") -> list[str]:
    lines = []
    for question, found in answers.items():
        lines.append(question)
        for sentence, score in found:
            start = f"  {score:.3f}  "
            lines.append(click.wrap_text(str(sentence), WIDTH, start, " " * len(start)))
        lines.append("")
    return lines

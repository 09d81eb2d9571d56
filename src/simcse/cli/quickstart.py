"""``simcse quickstart``: the first five minutes."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.options import model_option

if TYPE_CHECKING:
    from simcse.quickstart.outcome import Outcome
    from simcse.train.events import Event

WIDTH = 96  # of the answers


@click.command()
@model_option
@click.option(
    "--output",
    default="quickstart",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder to write; an earlier quickstart's is replaced.",
)
@click.option(
    "--sentences",
    default=4096,
    show_default=True,
    type=click.IntRange(2),
    help="How many to train on and search in.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0, 2**32 - 1),
    help="Of the batch order, the dropout and the interval.",
)
def quickstart(model: str, output: Path, sentences: int, seed: int) -> None:
    """Train, measure and search, on the documentation that comes with Python.

    Nothing is downloaded, and two cores need less than five minutes. Trains unsupervised SimCSE
    from the bundled model, shows what that changed on docstrings held out from training, and
    answers three questions. The output folder has the models best/ and last/, embeddings.npy of
    sentences.txt, log.jsonl, settings.toml, results.json and report.html.

    \b
    Examples:
      simcse quickstart
      simcse quickstart --sentences 1024 --output small
    """
    from simcse.cli.output import show
    from simcse.quickstart.outcome import next_commands
    from simcse.quickstart.run import quickstart as run

    with ExitStack() as shown:
        outcome = run(output, model=model, sentences=sentences, seed=seed, callback=_Display(shown))
    show(outcome.table(), "table")
    click.echo("\n".join(["", *outcome.conclusions(), "", *_answers(outcome)]))
    click.echo(f"{outcome.seconds:.0f} seconds in all. Open {output / 'report.html'}\n")
    click.echo("\n  ".join(["What to type next:", *next_commands(output)]))


class _Display:
    """Headings of the stages on stderr, and the bar of `simcse train` while training."""

    def __init__(self, shown: ExitStack) -> None:
        self.shown = shown

    def __call__(self, event: "Event") -> None:
        from simcse.quickstart.run import StageStarted
        from simcse.train.events import TrainingStarted
        from simcse.train.progress import ProgressBar

        if isinstance(event, StageStarted):
            self.shown.close()  # the bar, if it is there
            click.secho(event.title, err=True, bold=True)
            return
        if isinstance(event, TrainingStarted):
            self.progress = self.shown.enter_context(ProgressBar())
        self.progress(event)


def _answers(outcome: "Outcome") -> list[str]:
    lines = []
    for question, hits in outcome.answers.items():
        lines.append(question)
        for hit in hits:
            start = f"  {hit.cosine:.3f}  "
            lines.append(click.wrap_text(str(hit.sentence), WIDTH, start, " " * len(start)))
        lines.append("")
    return lines

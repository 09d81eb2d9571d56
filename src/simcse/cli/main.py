"""`simcse`: the command group and what every failure looks like to a user."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

import click

from simcse import __version__
from simcse.cli.adapt import adapt
from simcse.cli.average import average
from simcse.cli.bench import bench
from simcse.cli.calibrate import calibrate_command
from simcse.cli.compare import compare
from simcse.cli.data import data
from simcse.cli.encode import encode, similarity
from simcse.cli.evaluate import evaluate
from simcse.cli.export import export
from simcse.cli.index import index
from simcse.cli.info import info
from simcse.cli.mends import augment, dedupe, doctor, sample, split
from simcse.cli.pairs import neighbors, nli
from simcse.cli.paper import paper, sweep
from simcse.cli.postprocess import postprocess
from simcse.cli.pretrain import pretrain
from simcse.cli.quickstart import quickstart
from simcse.cli.reproduce import reproduce
from simcse.cli.serve import serve
from simcse.cli.train import train
from simcse.cli.weigh import weigh
from simcse.errors import SimcseError, SimcseWarning

INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="simcse")
def cli() -> None:
    """SimCSE sentence embeddings: train, evaluate, encode, search.

    \b
    Start here:
      simcse quickstart
      simcse similarity "A man plays a guitar." "Someone makes music."
    """


COMMANDS = (
    *(
        quickstart,
        train,
        adapt,
        pretrain,
        average,
        weigh,
        reproduce,
        evaluate,
        compare,
        postprocess,
    ),
    *(export, encode, similarity, index, calibrate_command, serve, info, data, bench),
    *(paper, sweep),
)
for command in COMMANDS:
    cli.add_command(command)
for command in (doctor, dedupe, split, sample, augment, neighbors, nli):
    data.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave with the exit code of what happened."""
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        with _warnings_as_lines():
            code = cli.main(typed, prog_name="simcse", standalone_mode=False, obj=typed)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SimcseError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of stdout has enough
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Say each of the package's own warnings once, as a line on stderr."""
    said: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, SimcseWarning):
            others(message, category, filename, lineno, file, line)
        elif str(message) not in said:
            said.add(str(message))
            click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        others, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", SimcseWarning)
        yield

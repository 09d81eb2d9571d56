"""`simcse`: the command group, and how failures and warnings are printed."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

import click

from simcse import __version__
from simcse.cli.adapt import adapt_command
from simcse.cli.average import average_command
from simcse.cli.calibrate import calibrate_command
from simcse.cli.compare import compare_command
from simcse.cli.data_make import data
from simcse.cli.encode import encode_command, similarity_command
from simcse.cli.evaluate import evaluate_command
from simcse.cli.export import export_command
from simcse.cli.index import index
from simcse.cli.info import info_command
from simcse.cli.paper import paper_group, sweep_command
from simcse.cli.postprocess import postprocess_command
from simcse.cli.pretrain import pretrain_command
from simcse.cli.quickstart import quickstart_command
from simcse.cli.reproduce import reproduce_command
from simcse.cli.serve import serve_command
from simcse.cli.sif import sif_command
from simcse.cli.train import train_command
from simcse.errors import SimcseError, SimcseWarning

INTERRUPTED = 130


CONTEXT: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "show_default": True,
}


@click.group(context_settings=CONTEXT)
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
        quickstart_command,
        train_command,
        adapt_command,
        pretrain_command,
        average_command,
        sif_command,
        reproduce_command,
        evaluate_command,
        compare_command,
        postprocess_command,
    ),
    *(export_command, encode_command, similarity_command, index, calibrate_command),
    *(serve_command, info_command, data),
    *(paper_group, sweep_command),
)
for command in COMMANDS:
    cli.add_command(command)


def main(arguments: list[str] | None = None, *, command: click.Command = cli) -> None:
    """Run a command and exit with the code of its failure, or 0."""
    try:
        typed = sys.argv[1:] if arguments is None else arguments
        with _warnings_as_lines():
            name = "simcse" if command is cli else command.name
            code = command.main(typed, name, standalone_mode=False, obj=typed, **CONTEXT)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SimcseError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of stdout ended
        sys.stderr.close()
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Print each of the package's own warnings once, as a line on stderr."""
    printed: set[str] = set()

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
        elif str(message) not in printed:
            printed.add(str(message))
            click.echo(f"warning: {message}", err=True)

    with warnings.catch_warnings():
        others, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", SimcseWarning)
        yield

"""Write docs/cli.md: every command's --help. Run by ``make docs``; a test compares."""

from collections.abc import Iterator
from pathlib import Path

import click

from simcse.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100


def command_page() -> str:
    """Return the Markdown page of all commands."""
    root = click.Context(cli, info_name="simcse", terminal_width=WIDTH, **cli.context_settings)
    sections = (f"## {each.command_path}\n\n```\n{each.get_help()}\n```\n" for each in _all(root))
    return "\n".join(["# Commands\n\nMade from `--help` by `make docs`; do not edit.\n", *sections])


def _all(context: click.Context) -> Iterator[click.Context]:
    yield context
    for name, command in getattr(context.command, "commands", {}).items():
        yield from _all(click.Context(command, parent=context, info_name=name))


if __name__ == "__main__":
    PAGE.write_text(command_page(), encoding="utf-8", newline="\n")

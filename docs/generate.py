"""Write docs/cli.md: every command's --help. Run by ``make docs``; a test compares."""

from pathlib import Path

import click

from simcse.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")


def command_page() -> str:
    """Return the Markdown page of all commands."""
    blocks = ["# Commands\n\nMade from `--help` by `make docs`; do not edit.\n"]
    for name, command in _commands("simcse", cli):
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        blocks.append(f"## {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(blocks)


def _commands(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    below = command.commands.items() if isinstance(command, click.Group) else ()
    return [(name, command)] + [
        found for part, inner in below for found in _commands(f"{name} {part}", inner)
    ]


if __name__ == "__main__":
    PAGE.write_text(command_page(), encoding="utf-8", newline="\n")

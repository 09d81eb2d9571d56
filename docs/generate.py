"""Write docs/cli.md, every command's --help, and the settings that ``train --help`` lists.

Run by ``make docs``; tests compare.
"""

import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import simcse.cli
from simcse.cli.main import cli
from simcse.cli.train import SETTINGS_TEXT
from simcse.train.settings import TrainConfig

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


def settings_text() -> str:
    """Return every setting of a run: its default, its choices, and its docstring's description."""
    lines = [
        f"  {name}{_shown(default)}\n{textwrap.indent(textwrap.fill(text, WIDTH - 12), ' ' * 6)}"
        for name, default, text in _settings(TrainConfig, "")
    ]
    return "\n".join(["Settings (section.key=value) and their defaults:", *lines]) + "\n"


def _settings(cls: type, section: str) -> Iterator[tuple[str, Any, str]]:
    descriptions, hints = _attributes(cls), typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _settings(hints[field.name], f"{field.name}.")
            continue
        text = descriptions[field.name].replace("``", "").replace("`", "")
        choices = _choices(hints[field.name])
        text += f" One of {', '.join(choices)}." if choices else ""
        default = None if field.default is dataclasses.MISSING else field.default
        yield f"{section}{field.name}", default, text[0].upper() + text[1:]


def _attributes(cls: type) -> dict[str, str]:
    """Return the descriptions under "Attributes:" in a docstring."""
    _, _, text = (inspect.getdoc(cls) or "").partition("Attributes:\n")
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(description.split()) for name, description in found}


def _choices(hint: object) -> list[str]:
    """Return the values of a literal type, also of an optional one."""
    if typing.get_origin(hint) is typing.Literal:
        return [str(value) for value in typing.get_args(hint)]
    return [choice for each in typing.get_args(hint) for choice in _choices(each)]


def _shown(default: object) -> str:
    return " (not set)" if default is None else f"={str(default).lower()}"


if __name__ == "__main__":
    settings_file = Path(simcse.cli.__file__).with_name(SETTINGS_TEXT)
    settings_file.write_text(settings_text(), encoding="utf-8", newline="\n")
    PAGE.write_text(command_page(), encoding="utf-8", newline="\n")

"""What is written about the project is true: snippets run, commands exist, exports match."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

import simcse
from simcse.cli.main import cli
from simcse.cli.options import POOLINGS as OFFERED
from simcse.cli.train import SETTINGS_TEXT
from simcse.model.pooling import POOLINGS
from simcse.train.settings import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in found if name == language]


def test_the_command_page_is_what_help_says():
    # In a fresh process: click remembers a command's help option from its first use.
    code = "import runpy; print(runpy.run_path('docs/generate.py')['command_page'](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == done.stdout


def test_the_settings_in_the_help_are_those_of_the_dataclasses():
    written = runpy.run_path(str(ROOT / "docs" / "generate.py"))["settings_text"]()
    stored = (ROOT / "src" / "simcse" / "cli" / SETTINGS_TEXT).read_text(encoding="utf-8")
    assert stored == written
    sections = ("model", "data", "loss", "optim", "eval", "guard", "train")
    known = {f"{s}.{field}" for s in sections for field in vars(getattr(TrainConfig(), s))}
    named = re.findall(r"^  (\S+?)(?:=| \(not set\)).*\n      [A-Z].*", stored, re.MULTILINE)
    assert set(named) == known | {"seed", "precision"}
    assert stored.rstrip().endswith(".")


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "(2, 384)" in capsys.readouterr().out
    assert (tmp_path / "my-model" / "modules.json").is_file()


def test_every_command_and_option_in_the_readme_exists():
    lines = [line for block in blocks("") for line in block.splitlines()]
    commands = [shlex.split(line) for line in lines if line.startswith("simcse ")]
    assert len(commands) >= 3
    for words in commands:
        command, path = cli, words[1:]
        while isinstance(command, click.Group):
            command = command.commands[path.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in path if word.startswith("--")} <= known, words


def test_make_targets_in_the_readme_exist():
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"run", "test"} <= set(re.findall(r"^make (\w+)", README, re.MULTILINE)) <= set(targets)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 60


def test_exports_match():
    assert set(simcse.__all__) <= set(dir(simcse))
    for name in simcse.__all__:
        assert getattr(simcse, name) is not None


def test_the_command_line_offers_every_pooling():
    assert OFFERED == POOLINGS


def test_no_option_is_without_help():
    def commands(command):
        yield command
        for inner in getattr(command, "commands", {}).values():
            yield from commands(inner)

    for command in commands(cli):
        assert command.help, command.name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, (command.name, parameter.name)


def test_every_file_of_the_architecture_page_exists():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"\b(?:[a-z_0-9]+/)+[a-z_0-9]+\.py\b|(?<![/\w])[a-z_0-9]+\.py\b", text))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / "src" / "simcse" / name).exists()]

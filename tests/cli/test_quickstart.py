"""``simcse quickstart`` as a user runs it, on this Python's own documentation."""

import re
import shlex
from pathlib import Path

import pytest

from simcse.cli.main import cli
from simcse.io.results import read_results
from simcse.quickstart.report import next_commands


@pytest.fixture
def quickstart(simcse, tiny_model_folder, tmp_path):
    """Run it with the tiny model on few sentences."""

    def run(*arguments):
        return simcse(
            *("quickstart", "--model", tiny_model_folder, "--output", tmp_path / "out"),
            *("--sentences", "200", *arguments),
        )

    return run


def test_it_measures_answers_and_says_what_to_try_next(quickstart, tmp_path):
    outcome = quickstart()
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "out" / "report.html").is_file()
    results = read_results(tmp_path / "out" / "results.json")
    assert results["sentences"]["trained"] == 200
    assert results["held_out"]["test"] > 100
    assert "\x1b" not in outcome.out + outcome.err  # not a terminal: no control characters
    assert f"{results['test']['start']['mrr']:.3f}" in outcome.out
    assert "compared with the start model" in outcome.out
    assert all(command in outcome.out for command in next_commands(tmp_path / "out"))
    for question, hits in results["answers"].items():
        assert question in outcome.out
        assert hits[0]["source"] in outcome.out
    assert [line for line in outcome.err.splitlines() if line.startswith(("Reading", "Training"))]


def test_every_next_command_exists():
    commands = next_commands(Path("quickstart"))
    assert 4 <= len(commands) <= 6
    for command in commands:
        program, name, *arguments = shlex.split(command)
        assert program == "simcse"
        if name == "--help":
            continue
        known = cli.commands[name]
        known = known.commands[arguments[0]] if hasattr(known, "commands") else known
        options = {option for parameter in known.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options


def test_a_folder_of_somebody_else_is_refused_with_the_fix(quickstart, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    outcome = quickstart()
    assert outcome.code == 2
    assert re.search(r"thesis\.tex.*pass another folder as --output", outcome.err)
    assert outcome.out == ""

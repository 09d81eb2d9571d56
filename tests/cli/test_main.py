"""What every command shares: help, exit codes, and a start that does not wait for torch."""

import subprocess
import sys

import pytest

PROBE = """
import sys
from simcse.cli.main import main
try:
    main({arguments})
except SystemExit as left:
    print("exit", left.code, "torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_does_not_import_torch(arguments):
    code = PROBE.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "exit 0 False"


def test_importing_the_package_does_not_import_torch():
    code = "import simcse, sys; print('torch' in sys.modules, simcse.SentenceEncoder.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "SentenceEncoder"]


def test_an_unknown_attribute_of_the_package_is_an_attribute_error():
    import simcse

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        simcse.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 2, "No such command"),
        (["similarity", "a", "", "--model", "x"], 2, "sentence B is empty"),
        (["similarity", "a", "b", "--model", "no-such-model"], 2, "no model 'no-such-model'"),
        (["encode", "no-such-file.txt", "--output", "x.npy"], 3, "cannot read no-such-file.txt"),
        (["evaluate", "sts", "--tasks", "sts99"], 2, "unknown task 'sts99'"),
        (["train", "--train", "x", "--output", "y", "loss.temprature=1"], 2, "loss.temperature"),
        (["train", "--train", "x", "--output", "y", "--preset", "z"], 2, "unsup-bert-base"),
        (["train", "--train", "x", "--output", "y", "loss.temperature=0"], 2, "must be > 0"),
        (["train", "--train", "missing.txt", "--output", "y", "eval.dev=none"], 3, "missing.txt"),
    ],
)
def test_a_users_mistake_has_its_exit_code_and_no_traceback(simcse, arguments, code, message):
    outcome = simcse(*arguments)
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_interrupting_exits_130(simcse, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("simcse.cli.encode.load_encoder", interrupted)
    outcome = simcse("similarity", "a", "b")
    assert (outcome.code, outcome.err.strip()) == (130, "interrupted")

"""The command line, run in this process as a user would run it."""

from dataclasses import dataclass

import pytest

from simcse.cli.main import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def simcse(capsys):
    """Run ``simcse ARGUMENTS`` and return exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Outcome(left.value.code, printed.out, printed.err)

    return run


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep embeddings that tests make out of the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

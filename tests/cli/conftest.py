"""The command line, run in this process as a user would run it."""

from dataclasses import dataclass

import pytest

from simcse.cli.main import main
from simcse.evaluate.sts import STS_TASKS
from simcse.io import benchmarks


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


@pytest.fixture
def small_data(tmp_path, monkeypatch):
    """A few rows for every task, in place of the known files."""
    files = {}
    rated = ["a\t5\tthe dog\tthe dog", "a\t1\tthe man\ta cat", "b\t3\tguitar\tthe guitar"]
    for name in (*STS_TASKS[:5], "stsb-test", "stsb-dev", "sickr-test", "sickr-all"):
        files[f"sts/{name}.tsv"] = rated
    for name in ("mr", "cr", "subj", "mpqa"):
        files[f"transfer_senteval/{name}.tsv"] = labeled("10")
    for part in ("train", "dev", "test"):
        files[f"transfer/sst2-{part}.tsv"] = labeled("01")
    for part in ("train", "test"):
        files[f"transfer_senteval/trec-{part}.tsv"] = labeled(["ABBR", "DESC", "NUM"])
        files[f"transfer_senteval/mrpc-{part}.tsv"] = [f"{row}\tthe cat" for row in labeled("01")]
    for path, rows in files.items():
        file = tmp_path / "data" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(rows) + "\n")
    known = {path: benchmarks.KnownFile(path, len(rows), None) for path, rows in files.items()}
    monkeypatch.setattr(benchmarks, "known_files", lambda: known)
    return tmp_path / "data"


def labeled(labels):
    """Twelve sentences of a label's own letter for each label."""
    letters = dict(zip(labels, "aeiou", strict=False))
    return [f"{label}\tthe {letters[label] * (1 + i)}" for label in labels for i in range(12)]

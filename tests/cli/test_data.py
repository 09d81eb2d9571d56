"""``simcse data``: what it prints, and its exit codes."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from simcse.cli.data import data
from simcse.errors import DataError, ResourceError
from simcse.io import fetch
from simcse.io.benchmarks import data_folder, known_files
from simcse.io.fetch import FetchedFile


def run(*arguments):
    return CliRunner().invoke(data, arguments)


def test_an_empty_folder_is_reported_and_no_error(tmp_path):
    result = run("check", "--data", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.count("missing") == len(known_files())


def test_a_wrong_file_is_an_error_with_exit_code_3(tmp_path):
    (tmp_path / "sts").mkdir()
    (tmp_path / "sts" / "sts12.tsv").write_text("s\t1\ta\tb\n")
    result = run("check", "--data", str(tmp_path))
    assert "wrong rows" in result.stdout
    assert isinstance(result.exception, DataError)
    assert result.exception.exit_code == 3
    assert "1 of 50 files differ: sts/sts12.tsv" in str(result.exception)


def test_a_file_for_a_folder_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    assert run("check", "--data", str(tmp_path / "file")).exit_code == 2


@pytest.mark.parametrize("command", ["check", "fetch"])
def test_help_carries_an_example(command):
    assert f"Example: simcse data {command}" in run(command, "--help").stdout


def test_fetch_prints_each_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMCSE_DATA", str(tmp_path))
    monkeypatch.setattr(
        fetch,
        "fetch_datasets",
        lambda folder: [FetchedFile(folder / "a"), FetchedFile(folder, "b")],
    )
    assert run("fetch").stdout == f"{tmp_path / 'a'}\n{tmp_path}  b\n"


def test_fetch_without_internet_writes_nothing(tmp_path):
    code = "from simcse.cli.data import data; data(['fetch'], standalone_mode=False)"
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "hub"),
        "SIMCSE_DATA": str(tmp_path / "data"),
    }
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert f"{ResourceError.__name__}: cannot download senteval.tar" in result.stderr
    assert not (tmp_path / "data").exists()


def test_nothing_heavy_is_imported():
    heavy = "{'torch', 'numpy', 'pyarrow', 'rich', 'huggingface_hub'}"
    code = f"import sys, simcse.cli.data; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n"


@pytest.mark.data
@pytest.mark.skipif(not (data_folder() / "sts").is_dir(), reason="no data folder")
def test_the_real_folder_is_right():
    result = run("check")
    assert result.exit_code == 0
    assert result.stdout.count("present") == 47

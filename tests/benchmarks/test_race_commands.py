"""The commands of the races as a user sees them; the races themselves are in test_race.py."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import encode
import quality
import race as racing
import roofline
import train
from race import System, Timing
from simcse.cli.main import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


COMMANDS = {"encode": encode.encode, "train": train.train, "quality": quality.quality}


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``python benchmarks/NAME.py ARGUMENTS``; return exit code, stdout and stderr."""

    def run(name: str, *arguments: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments], command=COMMANDS[name])
        printed = capsys.readouterr()
        return Outcome(left.value.code, printed.out, printed.err)

    return run


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[System]:
    """The systems of a race that takes no time: peers take twice as long, one is missing."""
    seen: list[System] = []

    def race(systems, *, rounds, target=None, log):
        seen.extend(systems)
        first, *others, last = systems
        result = [[1.0, 0.0]] if "encode" in first.factory else 0.5
        scores = () if target is None else (50.0, 60.0, target)
        log("racing")
        return [
            Timing(first.name, (1.0,) * rounds, 100.0, result, scores[1:]),
            *(Timing(other.name, (2.0,) * rounds, 150.0, result, scores) for other in others),
            Timing(last.name, missing="No module named 'peer'"),
        ]

    monkeypatch.setattr(racing, "race", race)
    monkeypatch.setattr(roofline, "product_rate", lambda width, precision, device: 1e12)
    return seen


@pytest.mark.parametrize("work", [["encode", "--repeats", "2"], ["train", "--batch", "4"]])
def test_a_race_is_shown_and_written(
    bench, entered: list[System], work: list[str], tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("a cat\na dog\nthe man\nthe dog\n")
    arguments = [*work, "--model", str(tiny_model_folder), "--input", str(tmp_path / "lines.txt")]
    output = tmp_path / "race.json"
    result = bench(*arguments, "--output", output)
    assert result.code == 0, result.err
    assert "2.00" in result.out
    assert "GFLOP in linear layers" in result.err
    written = json.loads(output.read_text())
    assert written["rounds"] == 5
    assert written["systems"][entered[1].name]["ratios"] == [2.0] * 5
    assert written["systems"][entered[-1].name] == {"missing": "No module named 'peer'"}
    assert written["roofline"]["rate"] == 1e12
    arguments = entered[0].arguments
    given = arguments["sentences"] if work[0] == "encode" else [row[0] for row in arguments["rows"]]
    assert given == ["a cat", "a dog", "the man", "the dog"]


def test_without_a_file_it_takes_what_python_carries(bench, entered: list[System]) -> None:
    result = bench("encode", "--sentences", "50")
    assert result.code == 0, result.err
    assert len(set(entered[0].arguments["sentences"])) == 50


def test_too_few_sentences_for_a_batch(bench, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a cat\n")
    result = bench("train", "--input", tmp_path / "lines.txt")
    assert result.code == 2
    assert "a batch needs 64 sentences, found 1" in result.err


def test_time_to_quality_is_shown_and_written(
    bench, entered: list[System], tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.tsv").write_text("a cat\ta pet\ta car\nthe dog\tthe pet\tthe bus\n")
    output = tmp_path / "race.json"
    arguments = ["--model", tiny_model_folder, "--input", tmp_path / "rows.tsv", "--batch", "2"]
    result = bench("quality", *arguments, "--target", "61", "--output", output)
    assert result.code == 0, result.err
    assert entered[0].arguments["rows"] == [
        ["a cat", "a pet", "a car"],
        ["the dog", "the pet", "the bus"],
    ]
    assert "3.00" in result.out  # 3 rounds of 2 seconds beside 2 rounds of 1
    written = json.loads(output.read_text())
    assert (written["target"], written["lr"]) == (61.0, 2e-4)
    assert written["systems"][entered[1].name]["scores"] == [50.0, 60.0, 61.0]
    few = bench("quality", "--input", tmp_path / "rows.tsv")
    assert few.code == 2
    assert "a batch needs 64 rows, found 2" in few.err


def test_only_named_systems_run(bench, entered: list[System]) -> None:
    result = bench("encode", "--sentences", "50", "--only", "int8", "--only", "default")
    assert result.code == 0, result.err
    peers = ["sentence-transformers, default", "OpenVINO, int8", "ONNX Runtime, int8"]
    assert [one.name for one in entered] == ["simcse, int8", *peers]
    none = bench("encode", "--only", "unknown")
    assert none.code == 2
    assert "--only matches no system; the systems are simcse, auto; simcse, fp32;" in none.err

"""`simcse bench` as a user sees it; the races themselves are in tests/unit/test_race.py."""

import json
from pathlib import Path

import pytest

from simcse.bench import race as racing
from simcse.bench import roofline as floors
from simcse.bench.race import System, Timing


@pytest.fixture
def entered(monkeypatch: pytest.MonkeyPatch) -> list[System]:
    """The systems of a race that takes no time: peers take twice as long, one is missing."""
    seen: list[System] = []

    def race(systems, *, rounds, target=None, observe):
        seen.extend(systems)
        first, *others, last = systems
        result = [[1.0, 0.0]] if "encode" in first.factory else 0.5
        scores = () if target is None else (50.0, 60.0, target)
        observe("racing")
        return [
            Timing(first.name, (1.0,) * rounds, 100.0, result, scores[1:]),
            *(Timing(other.name, (2.0,) * rounds, 150.0, result, scores) for other in others),
            Timing(last.name, missing="No module named 'peer'"),
        ]

    monkeypatch.setattr(racing, "race", race)
    monkeypatch.setattr(floors, "product_rate", lambda width, precision: 1e12)
    return seen


@pytest.mark.parametrize("work", [["encode", "--repeats", "2"], ["train", "--batch", "4"]])
def test_a_race_is_shown_and_written(
    simcse, entered: list[System], work: list[str], tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("a cat\na dog\nthe man\nthe dog\n")
    arguments = [*work, "--model", str(tiny_model_folder), "--input", str(tmp_path / "lines.txt")]
    output = tmp_path / "race.json"
    result = simcse("bench", *arguments, "--output", output)
    assert result.code == 0, result.err
    assert "2.00" in result.out
    assert "GFLOP in linear layers" in result.err
    written = json.loads(output.read_text())
    assert written["rounds"] == 5
    assert written["systems"][entered[1].name]["ratios"] == [2.0] * 5
    assert written["systems"][entered[-1].name] == {"missing": "No module named 'peer'"}
    assert written["roofline"]["rate"] == 1e12
    told = entered[0].arguments
    given = told["sentences"] if work[0] == "encode" else [row[0] for row in told["rows"]]
    assert given == ["a cat", "a dog", "the man", "the dog"]


def test_without_a_file_it_takes_what_python_carries(simcse, entered: list[System]) -> None:
    result = simcse("bench", "encode", "--sentences", "50")
    assert result.code == 0, result.err
    assert len(set(entered[0].arguments["sentences"])) == 50


def test_too_few_sentences_for_a_batch(simcse, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a cat\n")
    result = simcse("bench", "train", "--input", tmp_path / "lines.txt")
    assert result.code == 2
    assert "one batch takes 64 sentences, there are 1" in result.err


def test_time_to_quality_is_shown_and_written(
    simcse, entered: list[System], tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.tsv").write_text("a cat\ta pet\ta car\nthe dog\tthe pet\tthe bus\n")
    output = tmp_path / "race.json"
    arguments = ["--model", tiny_model_folder, "--input", tmp_path / "rows.tsv", "--batch", "2"]
    result = simcse("bench", "quality", *arguments, "--target", "61", "--output", output)
    assert result.code == 0, result.err
    assert entered[0].arguments["rows"] == [
        ["a cat", "a pet", "a car"],
        ["the dog", "the pet", "the bus"],
    ]
    assert "3.00" in result.out  # 3 rounds of 2 seconds beside 2 rounds of 1
    written = json.loads(output.read_text())
    assert (written["target"], written["lr"]) == (61.0, 2e-4)
    assert written["systems"][entered[1].name]["scores"] == [50.0, 60.0, 61.0]
    few = simcse("bench", "quality", "--input", tmp_path / "rows.tsv")
    assert few.code == 2
    assert "one batch takes 64 rows, there are 2" in few.err


def test_only_those_who_are_named_race(simcse, entered: list[System]) -> None:
    result = simcse("bench", "encode", "--sentences", "50", "--only", "int8", "--only", "default")
    assert result.code == 0, result.err
    peers = ["sentence-transformers, default", "OpenVINO, int8", "ONNX Runtime, int8"]
    assert [one.name for one in entered] == ["simcse, int8", *peers]
    nobody = simcse("bench", "encode", "--only", "somebody")
    assert nobody.code == 2
    assert "--only keeps nobody; there are simcse, auto; simcse, fp32;" in nobody.err

"""Choosing the precision: by the device, by one trial, and by what was found before."""

import json
from pathlib import Path

import pytest
import torch

from simcse.model import precision
from simcse.model.precision import CHOICES, choose_precision

CPU = torch.device("cpu")


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A processor that multiplies bf16 three times as fast; the trials it made."""
    made: list[str] = []

    def measure(dtype: torch.dtype, width: int) -> float:
        made.append(f"{dtype} {width}")
        return 0.1 if dtype == torch.bfloat16 else 0.3

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(precision, "_try", measure)
    precision._tried.cache_clear()
    yield made
    precision._tried.cache_clear()


def choose(width: int = 8) -> str:
    precision._tried.cache_clear()  # as another process
    return choose_precision("auto", CPU, width=width)


def test_what_is_named_is_taken_untried(trials: list[str]) -> None:
    assert choose_precision("bf16", CPU, width=8) == "bf16"
    assert choose_precision("fp32", CPU, width=8) == "fp32"
    assert choose_precision("auto", torch.device("meta"), width=8) == "fp32"
    assert trials == []


def test_a_processor_without_bf16_runs_fp32_untried(
    trials: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose() == "fp32"
    assert trials == []


def test_one_trial_a_machine_and_shape(trials: list[str], tmp_path: Path) -> None:
    assert [choose(), choose(), choose(16), choose(16)] == 4 * ["bf16"]
    both = ["torch.float32", "torch.bfloat16"]
    assert trials == [f"{dtype} {width}" for width in (8, 16) for dtype in both]
    kept = json.loads((tmp_path / "simcse" / CHOICES).read_text())
    assert list(kept.values()) == 2 * [{"fp32": 0.3, "bf16": 0.1}]
    assert all("width" in trial and torch.__version__ in trial for trial in kept)


def test_what_was_found_before_decides(trials: list[str], tmp_path: Path) -> None:
    choose()
    path = tmp_path / "simcse" / CHOICES
    (trial,) = json.loads(path.read_text())
    path.write_text(json.dumps({trial: {"fp32": 0.1, "bf16": 0.1}}))
    assert choose() == "fp32"  # a little faster does not pay, either
    torch.set_num_threads(torch.get_num_threads() + 1)
    try:
        assert choose() == "bf16"  # tried anew
    finally:
        torch.set_num_threads(torch.get_num_threads() - 1)
    assert len(json.loads(path.read_text())) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', '{"x": {"fp32": "fast"}}'])
def test_a_damaged_file_counts_as_none(trials: list[str], tmp_path: Path, content: str) -> None:
    path = tmp_path / "simcse" / CHOICES
    path.parent.mkdir()
    path.write_text(content)
    assert choose() == "bf16"
    assert len(json.loads(path.read_text())) == 1


def test_a_cache_that_cannot_be_written_is_none(trials: list[str], tmp_path: Path) -> None:
    (tmp_path / "simcse").write_text("a file")
    assert choose() == choose() == "bf16"
    assert len(trials) == 4


def test_the_trial_itself_measures() -> None:
    assert precision._try(torch.float32, 16) > 0

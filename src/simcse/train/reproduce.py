"""Repeating a run from its folder, and comparing the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simcse.config import build
from simcse.errors import UsageError
from simcse.io.checkpoints import WEIGHTS, read_safetensors
from simcse.io.settings import read_toml
from simcse.train.callbacks import BEST, LAST, LOG, SETTINGS
from simcse.train.events import Callback, TrainResult
from simcse.train.provenance import refuse_changes, refuse_other_run
from simcse.train.run import read_result, train
from simcse.train.settings import TrainConfig
from simcse.train.training_data import load_training_data


@dataclass(frozen=True)
class Reproduction:
    """A run and its repetition."""

    before: TrainResult
    again: TrainResult
    differences: Mapping[str, float]  # of a weight, the largest by model folder; 0 is bit for bit
    surroundings: tuple[str, ...]  # differences of versions, code, threads and hardware


def reproduce(folder: Path, output: Path, *, callbacks: Sequence[Callback] = ()) -> Reproduction:
    """Train the run in ``folder`` once more, into ``output``, and compare.

    Raises:
        UsageError: ``folder`` holds no finished run, or one that was trained on rows in memory.
        DataError: a training file or the dev set has changed.
        ConfigError: the start model has changed.
    """
    folder = folder.parent if folder.name in (BEST, LAST) else folder
    if not (folder / SETTINGS).exists():
        raise UsageError(f"{folder} is not a run folder: it has no {SETTINGS}")
    before = read_result(folder / LOG)
    if before is None:
        raise UsageError(f"the run in {folder} is not finished; continue it with train --resume")
    stored = read_toml(folder / SETTINGS)
    run: dict[str, Any] = stored["run"]
    if not run["train"]:
        raise UsageError(f"the run in {folder} was trained on rows in memory, not on files")
    config = build(TrainConfig, {name: value for name, value in stored.items() if name != "run"})
    data = load_training_data([Path(file) for file in run["train"]], config)
    refuse_other_run(stored, run["model"], data, config)
    again = train(
        data,
        model=run["model"],
        output=output,
        config=config,
        command=run["command"],
        precision=run["precision"],
        callbacks=callbacks,
    )
    surroundings = refuse_changes(stored, read_toml(output / SETTINGS))
    differences = {name: _difference(folder / name, output / name) for name in (BEST, LAST)}
    return Reproduction(before, again, differences, tuple(surroundings))


def _difference(before: Path, again: Path) -> float:
    left, right = read_safetensors(before / WEIGHTS), read_safetensors(again / WEIGHTS)
    if left.keys() != right.keys():
        return float("inf")
    return max(float(torch.max(torch.abs(left[name] - right[name]))) for name in left)

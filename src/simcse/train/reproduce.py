"""Running a run again from what its folder says, and comparing what comes out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from simcse.config import build
from simcse.errors import UsageError
from simcse.io.checkpoints import WEIGHTS, read_safetensors
from simcse.io.settings import read_toml
from simcse.train.evaluator import Event, TrainReport
from simcse.train.provenance import refuse_changes, same_run
from simcse.train.run import BEST, LAST, LOG, SETTINGS, finished_report, train_run
from simcse.train.settings import TrainConfig


@dataclass(frozen=True)
class Reproduction:
    """What came out again.

    Attributes:
        before: what the run came to.
        again: what its repetition came to.
        differences: largest difference of a weight, by model folder; 0 is bit for bit.
        surroundings: what is different now, such as versions and threads.
    """

    before: TrainReport
    again: TrainReport
    differences: Mapping[str, float]
    surroundings: tuple[str, ...]


def reproduce(
    folder: Path, output: Path, *, observe: Callable[[Event], None] = lambda event: None
) -> Reproduction:
    """Train the run in ``folder`` once more, into ``output``, and compare.

    Raises:
        UsageError: ``folder`` holds no finished run.
        DataError: a training file or the dev set is no longer the one it was.
        ConfigError: the start model is another.
    """
    folder = folder.parent if folder.name in (BEST, LAST) else folder
    if not (folder / SETTINGS).exists():
        raise UsageError(f"{folder} is no run folder: it has no {SETTINGS}")
    before = finished_report(folder / LOG)
    if before is None:
        raise UsageError(f"the run in {folder} is not finished; simcse train --resume goes on")
    stored = read_toml(folder / SETTINGS)
    run: dict[str, Any] = stored["run"]
    config = build(TrainConfig, {name: value for name, value in stored.items() if name != "run"})
    files = [Path(file) for file in run["train"]]
    same_run(stored, run["model"], files, config)
    again = train_run(
        run["model"],
        files,
        output,
        config,
        command=run["command"],
        precision=run["precision"],
        observe=observe,
    )
    surroundings = refuse_changes(stored, read_toml(output / SETTINGS))
    differences = {name: _difference(folder / name, output / name) for name in (BEST, LAST)}
    return Reproduction(before, again, differences, tuple(surroundings))


def _difference(before: Path, again: Path) -> float:
    left, right = read_safetensors(before / WEIGHTS), read_safetensors(again / WEIGHTS)
    if left.keys() != right.keys():
        return float("inf")
    return max(float(torch.max(torch.abs(left[name] - right[name]))) for name in left)

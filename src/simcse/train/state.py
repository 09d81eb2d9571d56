"""Checkpoints of a run, stored so that kills, full disks and damage are survived."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from simcse.errors import ArtifactError
from simcse.io.checkpoints import atomic_folder, read_json, read_safetensors, write_safetensors
from simcse.io.files import write_text
from simcse.io.manifests import check_manifest, write_manifest

CHECKPOINTS = "checkpoints"
KEPT_CHECKPOINTS = 2
TENSORS, PROGRESS = "state.safetensors", "progress.json"


@dataclass(frozen=True)
class TrainState:
    """A run between two steps: everything that the following steps depend on.

    Randomness is not part of it: batch order, dropout and masking are functions of seed and step.
    """

    step: int
    tensors: Mapping[str, Tensor]  # fp32 weights and the optimizer's moments
    progress: Mapping[str, Any]  # evaluations, counters and averages, in plain values


def save_state(folder: Path, state: TrainState) -> None:
    """Write a checkpoint below the run folder ``folder`` and remove all but the last two.

    The checkpoint is renamed to its final name when it is complete on the disk.

    Raises:
        ResourceError: the disk is full or read-only; earlier checkpoints are unchanged.
    """
    home = folder / CHECKPOINTS
    with atomic_folder(home / f"step-{state.step:08}") as new:
        write_safetensors(new / TENSORS, state.tensors)
        progress = {"step": state.step, **state.progress}
        write_text(new / PROGRESS, json.dumps(progress, indent=1) + "\n")
        write_manifest(new)
    kept = [path.name for path in _steps(home, until=state.step)[:KEPT_CHECKPOINTS]]
    for path in home.glob(
        "*step-*"
    ):  # older ones, damaged newer ones, and those of a killed writer
        if path.name not in kept and re.fullmatch(r"\.?step-\d+(\.\w+)*", path.name):
            shutil.rmtree(path)


def load_state(folder: Path, note: Callable[[str], None]) -> TrainState | None:
    """Read the last whole checkpoint below the run folder ``folder``; ``None`` if there is none.

    A damaged or incomplete one is skipped, and ``note`` is called with a message.

    Raises:
        ArtifactError: there are checkpoints, and all of them are damaged.
    """
    found = _steps(folder / CHECKPOINTS)
    for path in found:
        try:
            return _read(path)
        except ArtifactError as error:
            note(f"checkpoint {path.name} is skipped: {error}")
    if found:
        raise ArtifactError(
            f"{folder / CHECKPOINTS}: all {len(found)} checkpoints are damaged; to start again, "
            "train into another folder"
        )
    return None


def _read(path: Path) -> TrainState:
    check_manifest(path)
    progress = read_json(path / PROGRESS)
    return TrainState(int(progress.pop("step")), read_safetensors(path / TENSORS), progress)


def _steps(home: Path, until: int | None = None) -> list[Path]:
    """Return the folders of the checkpoints, the last one first."""
    found = {
        int(match[1]): path
        for path in (home.iterdir() if home.is_dir() else ())
        if (match := re.fullmatch(r"step-(\d+)", path.name))
    }
    return [found[step] for step in sorted(found, reverse=True) if until is None or step <= until]

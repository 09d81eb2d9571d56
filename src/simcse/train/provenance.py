"""Provenance of a model: command, code, data, hardware, versions and time."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from simcse.config import to_dict
from simcse.errors import ConfigError, DataError
from simcse.io.benchmarks import data_folder
from simcse.io.checkpoints import checksums
from simcse.io.files import sha256_file
from simcse.io.machine import processor
from simcse.losses import loss_provenance
from simcse.model.huggingface import locate
from simcse.report.versions import versions
from simcse.train.settings import TrainConfig
from simcse.train.training_data import TrainingData

DATA = ("run.train_sha256", "run.dev_sha256", "run.rows")
LOSS = ("run.loss.class", "run.loss.sha256")
FIXED = ("run.model_sha256", "run.world_size", *LOSS, *DATA)  # of [run]; the rest may change
FREE = ("train.checkpoint_every", "train.timeout")  # settings that may change


def describe_run(
    model: str,
    data: TrainingData,
    config: TrainConfig,
    *,
    command: str,
    world: int,
    precision: str,
) -> dict[str, Any]:
    """Return everything a run depends on: its settings, and the rest under ``run``.

    Raises:
        DataError: a file cannot be read.
        UsageError: there is no such model.
    """
    run = {
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": os.path.abspath(model) if Path(model).is_dir() else model,
        "train": [os.path.abspath(file) for file in data.files],
        **_inputs(model, data, config),
        "rows": len(data.all_rows or data.rows),
        "world_size": world,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "code_sha256": code_sha256(),
        "versions": versions(),
        "hardware": hardware(),
    }
    return {**to_dict(config), "run": run}


def refuse_other_run(
    before: Mapping[str, Any], model: str, data: TrainingData, config: TrainConfig
) -> None:
    """Refuse settings, start model, training data or dev set that differ from a run's description.

    Raises:
        DataError: the data or the dev set differs.
        ConfigError: a setting or the start model differs.
    """
    run = {**before["run"], **_inputs(model, data, config)}
    refuse_changes(before, {**to_dict(config), "run": run})


def for_model(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's description for a model folder, without the paths of this machine."""
    run = described["run"]
    return {
        **run,
        "model": Path(run["model"]).name if os.path.isabs(run["model"]) else run["model"],
        "train": [Path(file).name for file in run["train"]],
        "settings": {name: value for name, value in described.items() if name != "run"},
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the values that differ between two descriptions, by dotted name."""
    left, right = flat(before), flat(now)
    names = [*left, *(name for name in right if name not in left)]
    return {
        name: (left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name)
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Refuse to resume a run with other settings or data than it began with.

    A setting that a description lacks has its default.

    Returns:
        Differences of versions, code, threads and hardware, which may change the last bits of
        the result.

    Raises:
        DataError: the training data or the dev set differs; the message shows the hashes.
        ConfigError: a setting, the start model or the number of processes differs.
    """
    defaults = flat(to_dict(TrainConfig()))
    found = changes({**defaults, **flat(before)}, {**defaults, **flat(now)})
    refused = {
        name: values
        for name, values in found.items()
        if name in FIXED or not (name.startswith("run.") or name in FREE)
    }
    if refused:
        lines = [f"  {name}: {old} at its start, {new} now" for name, (old, new) in refused.items()]
        error = DataError if any(name in DATA for name in refused) else ConfigError
        raise error(
            "\n".join(["the run cannot be resumed, because it would be a different one:", *lines])
        )
    machine = ("run.threads", "run.code_sha256", "run.versions.", "run.hardware.")
    return [
        f"{name.removeprefix('run.')} was {old} and is {new}"
        for name, (old, new) in found.items()
        if name.startswith(machine)
    ]


def code_sha256() -> str:
    """Return one SHA-256 of this package's source files."""
    package = Path(str(resources.files("simcse")))
    return _joint(
        (path.relative_to(package).as_posix(), sha256_file(path))
        for path in sorted(package.rglob("*.py"))
    )


def hardware() -> dict[str, Any]:
    """Return the hardware that computes the numbers."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _inputs(model: str, data: TrainingData, config: TrainConfig) -> dict[str, Any]:
    return {
        "model_sha256": model_sha256(model),
        "loss": loss_provenance(config.loss.type),
        "train_sha256": data.sha256(),
        "dev_sha256": [sha256_file(file) for file in dev_files(config.eval.sets)],
    }


def model_sha256(model: str) -> str:
    """Return one SHA-256 of a model folder's files."""
    return _joint(checksums(locate(model)).items())


def dev_files(sets: Iterable[str]) -> list[Path]:
    """Return the files that ``eval.dev`` names."""
    known = {"stsb": data_folder() / "sts" / "stsb-dev.tsv"}
    return [known.get(name, Path(name)) for name in sets if name != "heldout"]


def _joint(hashes: Iterable[tuple[str, str]]) -> str:
    digest = hashlib.sha256()
    for name, value in hashes:
        digest.update(f"{name} {value}\n".encode())
    return digest.hexdigest()


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        nested = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return found

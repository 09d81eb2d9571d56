"""How a model came about: command, code, data, hardware, versions and time."""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from simcse.config import to_dict
from simcse.errors import ConfigError, DataError
from simcse.io.benchmarks import data_folder
from simcse.io.checkpoints import checksums
from simcse.io.files import sha256_file
from simcse.io.machine import processor
from simcse.model.names import locate
from simcse.train.settings import TrainConfig

PACKAGES = ("simcse-next", "torch", "transformers", "tokenizers", "numpy")
DATA = ("run.train_sha256", "run.dev_sha256", "run.rows")
SAME = ("run.model_sha256", "run.world_size", *DATA)  # of [run]; the rest may differ on resume
FREE = ("train.checkpoint_every", "train.timeout")  # settings that may


def describe(
    model: str,
    files: Sequence[Path],
    rows: int,
    config: TrainConfig,
    *,
    command: str,
    world: int,
    precision: str,
) -> dict[str, Any]:
    """Return everything a run depends on: its settings, and under ``run`` the rest.

    Raises:
        DataError: a file cannot be read.
        UsageError: there is no such model.
    """
    run = {
        "command": command,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "model": os.path.abspath(model) if Path(model).is_dir() else model,
        "train": [os.path.abspath(file) for file in files],
        **_inputs(model, files, config),
        "rows": rows,
        "world_size": world,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "code_sha256": code_sha256(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "hardware": hardware(),
    }
    return {**to_dict(config), "run": run}


def same_run(
    before: Mapping[str, Any], model: str, files: Sequence[Path], config: TrainConfig
) -> None:
    """Refuse a setting, start model, training file or dev set other than a run's description names.

    Raises:
        DataError: a file is another.
        ConfigError: a setting or the start model is.
    """
    run = {**before["run"], **_inputs(model, files, config)}
    refuse_changes(before, {**to_dict(config), "run": run})


def for_model(described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model folder says of its run: without the paths of this machine."""
    run = described["run"]
    return {
        **run,
        "model": Path(run["model"]).name if os.path.isabs(run["model"]) else run["model"],
        "train": [Path(file).name for file in run["train"]],
        "settings": {name: value for name, value in described.items() if name != "run"},
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return by dotted name what two descriptions say differently."""
    left, right = flat(before), flat(now)
    names = [*left, *(name for name in right if name not in left)]
    return {
        name: (left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name)
    }


def refuse_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Refuse to go on under other settings or with other data than the run began with.

    A setting that a description does not have, as it was not there yet, is at its default.

    Returns:
        What differs in the surroundings, such as versions or threads, which may change the
        last bits of the result.

    Raises:
        DataError: the training data or the dev set is another; the message shows the hashes.
        ConfigError: a setting, the start model or the number of processes is another.
    """
    defaults = flat(to_dict(TrainConfig()))
    found = changes({**defaults, **flat(before)}, {**defaults, **flat(now)})
    refused = {
        name: values
        for name, values in found.items()
        if name in SAME or not (name.startswith("run.") or name in FREE)
    }
    if refused:
        lines = [f"  {name}: {old} at its start, {new} now" for name, (old, new) in refused.items()]
        error = DataError if any(name in DATA for name in refused) else ConfigError
        raise error("\n".join(["the run cannot be resumed, it would become another:", *lines]))
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
    """Return what the numbers are computed on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _inputs(model: str, files: Sequence[Path], config: TrainConfig) -> dict[str, Any]:
    return {
        "model_sha256": model_sha256(model),
        "train_sha256": [sha256_file(file) for file in files],
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

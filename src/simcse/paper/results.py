"""The results of runs, one small JSON file each, named by the hash of all they depend on."""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simcse.config import to_dict
from simcse.errors import ArtifactError
from simcse.io.results import read_results, write_results
from simcse.train.provenance import changes
from simcse.train.settings import TrainConfig

FORMAT = 1
KEY_LENGTH = 16  # hexadecimal digits: 64 bits


@dataclass(frozen=True)
class Recipe:
    """Everything that a run's scores depend on, except versions and hardware."""

    model_sha256: str  # of the start model
    data_sha256: str  # of the training file; empty where none is read
    dev_sha256: tuple[str, ...]  # of the files of eval.dev
    config: TrainConfig  # all settings, the seed among them
    start: bool = False  # whether the start model itself is evaluated, without training
    postprocess: str = "none"  # layer that is fitted to the embeddings

    @property
    def key(self) -> str:
        """The hash of these; two grids that share a run have the same."""
        settings = _settings(self.config)
        settings.pop("train")  # which does not change the result
        if self.start:
            settings = {name: settings[name] for name in ("model", "data")}
        plain = {
            "model": self.model_sha256,
            "data": self.data_sha256,
            "dev": list(self.dev_sha256),
            "settings": settings,
            "start": self.start,
            "postprocess": self.postprocess,
        }
        text = json.dumps(plain, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, with the settings that differ from the defaults."""
        found = changes(_settings(TrainConfig()), _settings(self.config))
        return {
            "model_sha256": self.model_sha256,
            "data_sha256": self.data_sha256,
            "dev_sha256": list(self.dev_sha256),
            "start": self.start,
            "postprocess": self.postprocess,
            "settings": {name: now for name, (_, now) in found.items()},
        }


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Return plain values of the settings, without this machine's paths."""
    settings = to_dict(config)
    settings["eval"]["dev"] = ",".join(Path(name).name for name in config.eval.sets)
    return settings


@dataclass(frozen=True)
class Store:
    """A folder of results."""

    folder: Path  # path of the folder
    # Results by key, so that each file is read once.
    cache: dict[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """Return the path of a result."""
        return self.folder / f"{key}.json"

    def find(self, key: str, tests: Collection[str] = ()) -> dict[str, Any] | None:
        """Return a run's result if it exists and has the evaluations of ``tests``.

        Raises:
            ArtifactError: the file is damaged or not a result.
        """
        if key not in self.cache:
            if not self.path(key).exists():
                return None
            self.cache[key] = _checked(self.path(key), key)
        result = self.cache[key]
        complete = "failed" in result or set(tests) <= set(result["tests"])
        return result if complete else None

    def write(self, key: str, result: Mapping[str, Any]) -> None:
        """Write a run's result, merged with the other evaluations of an earlier result.

        Raises:
            ArtifactError: the existing file is not a result.
            ResourceError: it cannot be written.
        """
        before = self.find(key)
        whole = dict(result) if before is None or "failed" in result else _merged(before, result)
        write_results(self.path(key), {"format": FORMAT, "key": key, **whole})
        self.cache.pop(key, None)


def _merged(before: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result with the evaluations that only an earlier one of the same run has.

    The grid stays the one that trained it, and the time is that of all evaluations.
    """
    again = {name.partition(" ")[0] for name in result["tests"]}  # the last protocol of each
    other = [name for name in before["tests"] if name.partition(" ")[0] not in again]
    spent = [each["seconds"].get("measuring", 0.0) for each in (before, result)]
    return {
        **before,
        **result,
        "grid": before["grid"],
        "row": before["row"],
        "scores": {**before["scores"], **result["scores"]},
        "tests": [*other, *result["tests"]],
        "seconds": {**before["seconds"], **result["seconds"], "measuring": sum(spent)},
    }


def _checked(path: Path, key: str) -> dict[str, Any]:
    found = read_results(path)
    types = {"scores": dict, "tests": list, "recipe": dict, "seconds": dict}
    if (found.get("format"), found.get("key")) != (FORMAT, key) or not all(
        isinstance(found.get(name), expected) for name, expected in types.items()
    ):
        raise ArtifactError(f"{path} is not the result of a run; remove it to repeat the run")
    return found

"""Results as JSON: the same numbers give the same bytes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError
from simcse.io.files import write_text


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write ``results`` atomically as UTF-8 JSON with sorted keys.

    NumPy numbers and arrays, tuples and paths become plain values. A number that is not finite
    becomes ``null``: JSON has no NaN.

    Raises:
        ResourceError: the file cannot be written.
    """
    plain = _plain(results)
    text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(Path(path), text + "\n")


def read_results(path: str | Path) -> dict[str, Any]:
    """Read what `write_results` wrote.

    Raises:
        ArtifactError: the file is missing, unreadable or not a JSON object.
    """
    try:
        results = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ArtifactError(f"cannot read results {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: results are not JSON: {error}") from error
    if not isinstance(results, dict):
        found = type(results).__name__
        raise ArtifactError(f"{path}: expected a JSON object of results, got a {found}")
    return results


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value

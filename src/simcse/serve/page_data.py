"""Data that the page draws: the index on a map, models by alignment and uniformity."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.protocol import VectorIndex
from simcse.io.results import read_results

MAP_POINTS = 2000
MAX_VALUES = 20  # a field with more distinct values is offered without them


def index_map(index: VectorIndex, points: int = MAP_POINTS) -> dict[str, Any]:
    """Project rows, or a random sample of them, onto their two main directions (PCA).

    Coordinates are scaled to [-1, 1]; ``explained`` is their fraction of the variance.
    """
    rows, sampled = index.sample(points)
    if len(rows) < 3:
        return {"points": [], "rows": len(index), "explained": 0.0}
    vectors = sampled.astype(np.float64)  # (P, D)
    centered = vectors - vectors.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centered, full_matrices=False)
    positions = left[:, :2] * strengths[:2]  # (P, 2)
    positions /= max(np.abs(positions).max(), 1e-12)
    explained = float((strengths[:2] ** 2).sum() / max((strengths**2).sum(), 1e-12))
    drawn = [
        {"x": float(x), "y": float(y), "id": row.id, "text": row.text}
        for (x, y), row in zip(positions, rows, strict=True)
    ]
    return {"points": drawn, "rows": len(index), "explained": explained}


def field_values(index: VectorIndex) -> dict[str, list[Any]]:
    """Return the metadata fields, each with its distinct values if they are few."""
    fields = index.metadata.read_values(MAX_VALUES + 1)
    return {name: values if len(values) <= MAX_VALUES else [] for name, values in fields.items()}


def evaluated_models(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the alignment and uniformity of models from `simcse evaluate` results.

    Raises:
        ArtifactError: a file holds no results.
    """
    models = []
    for path in files:
        file = path / "results.json" if path.is_dir() else path
        try:
            for model in read_results(file)["models"]:
                if geometry := model["geometry"]:
                    # Only the end of the path: the server's folders are not public.
                    name = "/".join(str(model["model"]).rstrip("/").split("/")[-2:])
                    values = {key: geometry[key] for key in ("alignment", "uniformity")}
                    models.append({"model": name, **values})
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{file}: not results of simcse evaluate ({error!r})") from error
    return models

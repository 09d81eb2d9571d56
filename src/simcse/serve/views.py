"""What the page draws: the index on a map, models on the alignment-uniformity plane."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse.errors import ArtifactError
from simcse.index.protocol import VectorIndex
from simcse.io.results import read_results

POINTS = 2000
VALUES = 20  # a field with more distinct values is offered without them


def index_map(index: VectorIndex, points: int = POINTS) -> dict[str, Any]:
    """Project rows, or a random sample of them, onto their two main directions (PCA).

    Coordinates are scaled to [-1, 1]; ``explained`` is the share of variance they hold.
    """
    rows, sampled = index.sample(points)
    if len(rows) < 3:
        return {"points": [], "rows": len(index), "explained": 0.0}
    vectors = sampled.astype(np.float64)  # (P, D)
    centered = vectors - vectors.mean(axis=0)
    left, strengths, _ = np.linalg.svd(centered, full_matrices=False)
    places = left[:, :2] * strengths[:2]  # (P, 2)
    places /= max(np.abs(places).max(), 1e-12)
    explained = float((strengths[:2] ** 2).sum() / max((strengths**2).sum(), 1e-12))
    return {
        "points": [
            {"x": float(x), "y": float(y), "id": row.id, "text": row.text}
            for (x, y), row in zip(places, rows, strict=True)
        ],
        "rows": len(index),
        "explained": explained,
    }


def field_values(index: VectorIndex) -> dict[str, list[Any]]:
    """Return the metadata fields, each with its distinct values if they are few."""
    found = index.metadata.read_values(VALUES + 1)
    return {name: values if len(values) <= VALUES else [] for name, values in found.items()}


def _short(name: str) -> str:
    """Return the end of a path: where a model is on the disk concerns nobody."""
    return "/".join(name.rstrip("/").split("/")[-2:])


def evaluated_models(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read the models of `simcse evaluate` results whose alignment and uniformity were measured.

    Raises:
        ArtifactError: a file holds no results.
    """
    models = []
    for path in files:
        file = path / "results.json" if path.is_dir() else path
        try:
            for model in read_results(file)["models"]:
                if model["geometry"]:
                    places = {name: model["geometry"][name] for name in ("alignment", "uniformity")}
                    models.append({"model": _short(str(model["model"])), **places})
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{file}: not results of simcse evaluate ({error!r})") from error
    return models

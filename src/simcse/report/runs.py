"""The reports: one page for a training run, one for an evaluation of models."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simcse.evaluate.geometry import Geometry
from simcse.evaluate.sts import STS_TASKS, Aggregation, Correlation, StsResult, sts_average
from simcse.report import html
from simcse.report.plots import Curve, PlanePoint, alignment_uniformity_plane, bars, curves
from simcse.report.tables import Column, Table

TASK_TITLES = {
    "sts12": "STS12",
    "sts13": "STS13",
    "sts14": "STS14",
    "sts15": "STS15",
    "sts16": "STS16",
    "stsb": "STS-B",
    "sickr": "SICK-R",
}
MEASURES = {  # titles of what an "eval" row of the training log holds
    "stsb_dev": "STS-B dev, Spearman ×100",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
    "mean_cosine": "Mean cosine",
    "heldout_loss": "Held-out contrastive loss",
    "loss": "Training loss since the look before",
    "gradient_norm": "Gradient norm since the look before",
}
AGGREGATIONS = {
    "all": "one correlation over each task's concatenated subsets",
    "mean": "the mean over each task's subsets",
    "wmean": "the mean over each task's subsets, weighted by their pairs",
}
MOST_BARS = 4  # models; more are told apart in the table only
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """What was measured of one model.

    Attributes:
        model: its name, folder or hub id.
        sts: results by task name.
        geometry: alignment and uniformity, where measured.
        settings: the model's resolved settings, nested.
    """

    model: str
    sts: Mapping[str, StsResult]
    geometry: Geometry | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def training_report(
    rows: Iterable[Row],
    settings: Mapping[str, Any],
    *,
    title: str = "Training run",
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the page of a run folder: its curves, best step, outcome and settings.

    ``rows`` are those of ``log.jsonl``: each has an ``event``; a ``step`` has ``step``, ``loss``
    and ``lr``; an ``eval`` has ``step``, ``best`` and what was measured, what decides first;
    ``finish`` has what the run wants remembered. A step logged twice, by a run that was killed
    and resumed, counts once, as it was logged last.
    """
    rows = list(rows)
    steps, evaluations, best = _by_step(rows, "step"), _by_step(rows, "eval"), best_step(rows)
    warnings = [row["text"] for row in rows if row["event"] in ("warning", "guard")]
    blocks = [_training_summary(steps, evaluations, best), *warnings]
    figures = _training_figures(steps, evaluations, best)
    if figures:
        legend = [] if best is None else ["The dotted line is the best step."]
        blocks.append(html.section("Curves", *legend, html.gallery(*figures)))
    if evaluations:
        blocks.append(html.section("Evaluations", html.table(_evaluations_table(evaluations))))
    for row in [row for row in rows if row["event"] == "finish"][-1:]:
        outcome = {key: value for key, value in row.items() if key != "event"}
        blocks.append(html.section("Outcome", html.table(key_values("At the end", outcome))))
    blocks += _provenance({"Settings": settings, "Versions": versions or {}})
    return html.page(title, *blocks)


def best_step(rows: Iterable[Row]) -> int | None:
    """Return the last step that was called best when it was looked at; ``None`` if none was."""
    evaluations = _by_step(rows, "eval").items()
    return max((step for step, row in evaluations if row.get("best")), default=None)


def evaluation_report(
    models: Sequence[ModelEvaluation],
    *,
    aggregation: Aggregation = "all",
    data: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    title: str = "STS evaluation",
) -> str:
    """Return the page of an evaluation: STS, geometry, subsets, settings and provenance.

    ``data`` maps each file that was read to its SHA-256, ``versions`` each package to its version;
    ``notes`` is what a reader must know, such as those of the tasks.
    """
    blocks: list[str] = [
        f"Spearman ×100 of cosines and gold scores. Aggregation “{aggregation}”: "
        f"{AGGREGATIONS[aggregation]}. A dash is a score that is missing or undefined.",
        *notes,
        html.table(sts_table(models, aggregation=aggregation)),
    ]
    if 1 < len(models) <= MOST_BARS:
        blocks.append(_sts_bars(models, aggregation))
    if any(model.geometry for model in models):
        blocks.append(_geometry_section(models, aggregation))
    tables = [html.table(subset_table(models, task)) for task in _measured(models)]
    blocks.append(html.section("Subsets", html.details("Every task by subset", *tables)))
    settings = {f"Settings of {model.model}": model.settings for model in models}
    blocks += _provenance({**settings, "Data, SHA-256": data or {}, "Versions": versions or {}})
    return html.page(title, *blocks)


def sts_table(models: Sequence[ModelEvaluation], *, aggregation: Aggregation = "all") -> Table:
    """Return the paper's table of seven tasks and their average, one model a row."""
    titles = [*(TASK_TITLES[task] for task in STS_TASKS), "Avg."]
    columns = (Column("Model"), *(Column(title, best="highest") for title in titles))
    rows = tuple(
        (model.model, *_scores(model, aggregation), sts_average(model.sts, aggregation=aggregation))
        for model in models
    )
    return Table(f"STS, Spearman ×100, aggregation {aggregation}", columns, rows)


def subset_table(models: Sequence[ModelEvaluation], task: str) -> Table:
    """Return one task's Spearman x100 by subset, then by aggregation, one model a column."""
    parts = [_parts(model.sts[task]) if task in model.sts else {} for model in models]
    pairs = {name: found.pairs for part in parts for name, found in part.items()}
    rows = tuple(
        (name, count, *(part[name].spearman if name in part else None for part in parts))
        for name, count in pairs.items()
    )
    columns = (Column("Subset"), Column("Pairs"), *(Column(model.model) for model in models))
    return Table(TASK_TITLES.get(task, task), columns, rows)


def geometry_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return alignment and uniformity, one measured model a row.

    No value is in bold: a collapsed model aligns perfectly, so that neither is best alone.
    """
    titles = ("Alignment", "Uniformity", "Positive pairs", "Sentences", "Zero vectors")
    columns = (Column("Model"), *(Column(title, decimals=3) for title in titles))
    rows = tuple(
        (
            model.model,
            found.alignment,
            found.uniformity,
            found.positives,
            found.sentences,
            found.zero_vectors,
        )
        for model in models
        if (found := model.geometry)
    )
    return Table("On unit vectors; lower is better, of both at once", columns, rows)


def key_values(title: str, values: Mapping[str, Any]) -> Table:
    """Return nested settings as a table of dotted names and values."""
    return Table(title, (Column("Name"), Column("Value")), tuple(_flat(values)))


def _training_summary(
    steps: Mapping[int, Row], evaluations: Mapping[int, Row], best: int | None
) -> str:
    last = f"{len(steps)} steps were logged" if steps else "No step was logged"
    measures = _measures(evaluations)
    if best is None or not measures:
        return f"{last}; no evaluation gave a score to choose by."
    score = _finite(evaluations[best].get(measures[0]))
    shown = "undefined" if score is None else f"{score:.2f}"
    title = MEASURES.get(measures[0], measures[0])
    return f"{last}; the best is step {best}: {title} {shown}."


def _training_figures(
    steps: Mapping[int, Row], evaluations: Mapping[int, Row], best: int | None
) -> list[html.Html]:
    """Draw every measure that was logged, one figure each."""
    sources = {"loss": ("Loss", steps), "lr": ("Learning rate", steps)}
    sources |= {key: (MEASURES.get(key, key), evaluations) for key in _measures(evaluations)}
    figures = []
    for key, (title, rows) in sources.items():
        values = [_finite(row.get(key)) for row in rows.values()]
        known = [value for value in values if value is not None]
        if known:
            png = curves([Curve(title, list(rows), values)], title=title, best_step=best)
            alt = f"{title} by step: {known[0]:.4g} at first, {known[-1]:.4g} at last"
            figures.append(html.figure(png, alt))
    return figures


def _evaluations_table(evaluations: Mapping[int, Row]) -> Table:
    measures = _measures(evaluations)
    columns = [Column(MEASURES.get(key, key), 3) for key in measures]
    if columns:
        lowest = measures[0].endswith("loss")
        columns[0] = replace(columns[0], best="lowest" if lowest else "highest")
    rows = tuple(
        (step, *(_finite(row.get(key)) for key in measures)) for step, row in evaluations.items()
    )
    return Table("Scores by step", (Column("Step"), *columns), rows)


def _measures(evaluations: Mapping[int, Row]) -> list[str]:
    """Return the names of what was measured, as logged; the deciding one comes first."""
    found = dict.fromkeys(key for row in evaluations.values() for key in row)
    return [key for key in found if key not in ("event", "step", "best")]


def _sts_bars(models: Sequence[ModelEvaluation], aggregation: Aggregation) -> html.Html:
    groups = {model.model: _scores(model, aggregation) for model in models}
    title = f"STS, Spearman ×100, aggregation {aggregation}"
    png = bars([TASK_TITLES[task] for task in STS_TASKS], groups, title=title)
    return html.figure(png, f"Bars of the table above: {title}")


def _geometry_section(models: Sequence[ModelEvaluation], aggregation: Aggregation) -> html.Html:
    points = [
        PlanePoint(
            model.model,
            model.geometry.alignment,
            model.geometry.uniformity,
            sts_average(model.sts, aggregation=aggregation),
        )
        for model in models
        if model.geometry
    ]
    return html.section(
        "Alignment and uniformity",
        html.table(geometry_table(models)),
        html.figure(
            alignment_uniformity_plane(points),
            "Models by alignment and uniformity, as in the table above",
            "Numbers in brackets and colours are STS averages.",
        ),
    )


def _provenance(parts: Mapping[str, Mapping[str, Any]]) -> list[html.Html]:
    folded = [
        html.details(title, html.table(key_values(title, values)))
        for title, values in parts.items()
        if values
    ]
    return [html.section("Settings and provenance", *folded)] if folded else []


def _measured(models: Sequence[ModelEvaluation]) -> list[str]:
    """Return the tasks any model has, the paper's seven first."""
    found = dict.fromkeys(task for model in models for task in model.sts)
    return [task for task in STS_TASKS if task in found] + [
        task for task in found if task not in STS_TASKS
    ]


def _scores(model: ModelEvaluation, aggregation: Aggregation) -> list[float | None]:
    found = (model.sts.get(task) for task in STS_TASKS)
    return [None if result is None else result.spearman(aggregation) for result in found]


def _parts(result: StsResult) -> dict[str, Correlation]:
    """Return a task's correlations under the names they have in a table."""
    whole = {f"aggregation {name}": found for name, found in result.aggregations.items()}
    return {**result.subsets, **whole}


def _by_step(rows: Iterable[Row], event: str) -> dict[int, Row]:
    found = {row["step"]: row for row in rows if row["event"] == event}
    return {step: found[step] for step in sorted(found)}


def _finite(value: Any) -> float | None:  # noqa: ANN401 - a value of a JSON log
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, str):
            yield f"{prefix}{key}", value
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False, default=str)

"""The page of a training run: its curves, outcome and settings."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from simcse.errors import UsageError
from simcse.io.log import read_log
from simcse.report import html
from simcse.report.plots import Curve, Trajectory, alignment_uniformity_plane, curves
from simcse.report.tables import Column, Table

TITLES_BY_KEY = {  # of the metrics in an "eval" row of the training log
    "stsb_dev": "STS-B dev, Spearman ×100",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
    "mean_cosine": "Mean cosine of two sentences",
    "effective_rank": "Effective rank",
    "heldout_loss": "Held-out contrastive loss",
    "heldout_mlm_loss": "Held-out masked-language-model loss",
    "perplexity": "Held-out perplexity of masked tokens",
    "loss": "Training loss since the last evaluation",
    "gradient_norm": "Gradient norm since the last evaluation",
}
LogRow = Mapping[str, Any]
ByStep = Mapping[int, LogRow]


def training_report(
    rows: Iterable[LogRow],
    settings: Mapping[str, Any],
    *,
    title: str = "Training run",
    tables: Sequence[Table] = (),
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the page of a run folder: its curves, best step, outcome and settings.

    ``rows`` are those of ``log.jsonl``: each has an ``event``; a ``step`` has ``step``, ``loss``
    and ``lr``; an ``eval`` has ``step``, ``best`` and its metrics, the deciding one first;
    ``finish`` has the outcome. Of a step logged twice, by a run that was killed and resumed, the
    last row counts. ``tables`` come first on the page.
    """
    rows = list(rows)
    steps, evaluations, best = _by_step(rows, "step"), _by_step(rows, "eval"), best_step(rows)
    warnings = [row["text"] for row in rows if row["event"] in ("warning", "guard")]
    blocks: list[str] = [_training_summary(steps, evaluations, best), *warnings]
    blocks += [html.section(each.title, each) for each in tables]
    figures = _training_figures(steps, evaluations, best)
    if figures:
        legend = [] if best is None else ["The dotted line is the best step."]
        blocks.append(html.section("Curves", *legend, html.gallery(*figures)))
    if evaluations:
        blocks.append(html.section("Evaluations", _evaluations_table(evaluations)))
    for row in [row for row in rows if row["event"] == "finish"][-1:]:
        outcome = {key: value for key, value in row.items() if key != "event"}
        blocks.append(html.section("Outcome", key_values("At the end", outcome)))
    blocks += provenance({"Settings": settings, "Versions": versions or {}})
    return html.page(title, *blocks)


def best_step(rows: Iterable[LogRow]) -> int | None:
    """Return the last step whose evaluation was the best so far; ``None`` if none was."""
    evaluations = _by_step(rows, "eval").items()
    return max((step for step, row in evaluations if row.get("best")), default=None)


def key_values(title: str, values: Mapping[str, Any]) -> Table:
    """Return nested settings as a table of dotted names and values."""
    return Table(title, (Column("Name"), Column("Value")), tuple(_flat(values)))


def _training_summary(steps: ByStep, evaluations: ByStep, best: int | None) -> str:
    logged = f"{len(steps)} steps were logged" if steps else "No step was logged"
    metrics = _metrics(evaluations)
    if best is None or not metrics:
        return f"{logged}; no evaluation had a score."
    score, title = _finite(evaluations[best].get(metrics[0])), _title(metrics[0])
    shown = "undefined" if score is None else f"{score:.2f}"
    return f"{logged}; the best is step {best}: {title} {shown}."


def _training_figures(steps: ByStep, evaluations: ByStep, best: int | None) -> list[html.Html]:
    """Draw every logged metric, one figure each."""
    sources = {"loss": ("Loss", steps), "lr": ("Learning rate", steps)}
    sources |= {key: (_title(key), evaluations) for key in _metrics(evaluations)}
    figures = []
    for key, (title, rows) in sources.items():
        values = [_finite(row.get(key)) for row in rows.values()]
        known = [value for value in values if value is not None]
        if known:
            png = curves([Curve(title, list(rows), values)], title=title, best_step=best)
            alt = f"{title} by step: {known[0]:.4g} at first, {known[-1]:.4g} at last"
            figures.append(html.figure(png, alt))
    trajectory = _trajectory("this run", evaluations.values())
    if len(trajectory.points) > 1:
        png = alignment_uniformity_plane([], trajectories=[trajectory])
        alt = "Alignment and uniformity from the first evaluation to the last"
        figures.append(html.figure(png, alt, "Lower is better for both."))
    return figures


def saved_evaluations(folder: Path) -> dict[int, Path]:
    """Return the models that ``eval.save_all=true`` saved, by step.

    Raises:
        UsageError: there are fewer than two.
    """
    found = {int(path.name[5:]): path for path in sorted(folder.glob("step-*"))}
    if len(found) < 2:
        expected = f"expected at least 2 saved evaluations in {folder}, found {len(found)}"
        raise UsageError(f"{expected}. Train with eval.save_all=true.")
    return found


def run_trajectory(run: Path) -> Trajectory:
    """Return the alignment and uniformity in the log of a run folder."""
    rows = read_log(run / "log.jsonl")
    return _trajectory(run.name, [row for row in rows if row["event"] == "eval"])


def _trajectory(label: str, rows: Iterable[LogRow]) -> Trajectory:
    found = [(_finite(row.get("alignment")), _finite(row.get("uniformity"))) for row in rows]
    known = [(first, second) for first, second in found if first is not None and second is not None]
    return Trajectory(label, known)


def _evaluations_table(evaluations: ByStep) -> Table:
    metrics = _metrics(evaluations)
    columns = [Column(_title(key), 3) for key in metrics]
    if columns:
        lowest = metrics[0].endswith("loss")
        columns[0] = replace(columns[0], best="lowest" if lowest else "highest")
    rows = tuple(
        (step, *(_finite(row.get(key)) for key in metrics)) for step, row in evaluations.items()
    )
    return Table("Scores by step", (Column("Step"), *columns), rows)


def _title(key: str) -> str:
    return TITLES_BY_KEY.get(key, key)


def _metrics(evaluations: ByStep) -> list[str]:
    """Return the names of the metrics as logged; the deciding one comes first."""
    found = dict.fromkeys(key for row in evaluations.values() for key in row)
    return [key for key in found if key not in ("event", "step", "best")]


def provenance(tables: Mapping[str, Mapping[str, Any]]) -> list[html.Html]:
    """Return a section of folded tables, one for each mapping that is not empty."""
    folded = [
        html.details(title, key_values(title, values)) for title, values in tables.items() if values
    ]
    return [html.section("Settings and provenance", *folded)] if folded else []


def _by_step(rows: Iterable[LogRow], event: str) -> dict[int, LogRow]:
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

"""The page of a training run: its curves, outcome and settings."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simcse.report import html
from simcse.report.plots import Curve, Path, alignment_uniformity_plane, curves
from simcse.report.tables import Column, Table

MEASURES = {  # titles of what an "eval" row of the training log holds
    "stsb_dev": "STS-B dev, Spearman ×100",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
    "mean_cosine": "Mean cosine of two sentences",
    "effective_rank": "Effective rank",
    "heldout_loss": "Held-out contrastive loss",
    "heldout_mlm_loss": "Held-out masked-language-model loss",
    "perplexity": "Held-out perplexity of masked tokens",
    "loss": "Training loss since the look before",
    "gradient_norm": "Gradient norm since the look before",
}
Row = Mapping[str, Any]


def training_report(
    rows: Iterable[Row],
    settings: Mapping[str, Any],
    *,
    title: str = "Training run",
    tables: Sequence[Table] = (),
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the page of a run folder: its curves, best step, outcome and settings.

    ``rows`` are those of ``log.jsonl``: each has an ``event``; a ``step`` has ``step``, ``loss``
    and ``lr``; an ``eval`` has ``step``, ``best`` and what was measured, what decides first;
    ``finish`` has what the run wants remembered. A step logged twice, by a run that was killed
    and resumed, counts once, as it was logged last. ``tables`` come first on the page.
    """
    rows = list(rows)
    steps, evaluations, best = _by_step(rows, "step"), _by_step(rows, "eval"), best_step(rows)
    warnings = [row["text"] for row in rows if row["event"] in ("warning", "guard")]
    blocks = [_training_summary(steps, evaluations, best), *warnings]
    blocks += [html.section(each.title, html.table(each)) for each in tables]
    figures = _training_figures(steps, evaluations, best)
    if figures:
        legend = [] if best is None else ["The dotted line is the best step."]
        blocks.append(html.section("Curves", *legend, html.gallery(*figures)))
    if evaluations:
        blocks.append(html.section("Evaluations", html.table(_evaluations_table(evaluations))))
    for row in [row for row in rows if row["event"] == "finish"][-1:]:
        outcome = {key: value for key, value in row.items() if key != "event"}
        blocks.append(html.section("Outcome", html.table(key_values("At the end", outcome))))
    blocks += provenance({"Settings": settings, "Versions": versions or {}})
    return html.page(title, *blocks)


def best_step(rows: Iterable[Row]) -> int | None:
    """Return the last step that was called best when it was looked at; ``None`` if none was."""
    evaluations = _by_step(rows, "eval").items()
    return max((step for step, row in evaluations if row.get("best")), default=None)


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
    trajectory = training_path("this run", evaluations.values())
    if len(trajectory.points) > 1:
        png = alignment_uniformity_plane([], paths=[trajectory])
        alt = "Alignment and uniformity from the first evaluation to the last"
        figures.append(html.figure(png, alt, "The path of the training; both lower is better."))
    return figures


def training_path(label: str, rows: Iterable[Row]) -> Path:
    """Return the alignment and uniformity of the rows of a log that have both."""
    found = [(_finite(row.get("alignment")), _finite(row.get("uniformity"))) for row in rows]
    known = [(first, second) for first, second in found if first is not None and second is not None]
    return Path(label, known)


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


def provenance(parts: Mapping[str, Mapping[str, Any]]) -> list[html.Html]:
    """Return a section of folded tables, one for each part that says anything."""
    folded = [
        html.details(title, html.table(key_values(title, values)))
        for title, values in parts.items()
        if values
    ]
    return [html.section("Settings and provenance", *folded)] if folded else []


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

"""The page of an evaluation, and the same as JSON, Markdown and LaTeX."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.evaluate.measure import ModelEvaluation
from simcse.evaluate.sts import STS_TASKS, Aggregation, sts_average
from simcse.report import html
from simcse.report.comparison import TITLES, compare, comparison_table, pack
from simcse.report.evaluation_tables import (
    geometry_table,
    items_of,
    retrieval_table,
    space_table,
    sts_scores,
    sts_table,
    subset_table,
    transfer_table,
    transfer_warnings,
)
from simcse.report.plots import (
    Path,
    PlanePoint,
    alignment_uniformity_plane,
    bars,
    rating_densities,
    spectrum,
)
from simcse.report.runs import provenance
from simcse.report.tables import Column, Table

AGGREGATIONS = {
    "all": "one correlation over each task's concatenated subsets",
    "mean": "the mean over each task's subsets",
    "wmean": "the mean over each task's subsets, weighted by their pairs",
}
MOST_BARS = 4  # models; more are told apart in the table only
BANDS = 5  # of the STS-B ratings 0 to 5, as the paper's figure
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Models measured on the same data.

    Attributes:
        models: one or more; the first is what the others are compared with.
        aggregation: of the STS subsets.
        protocol: of the transfer tasks, in words.
        gold: ratings (N,) of each STS task.
        data: each file that was read, and its SHA-256.
        versions: of the packages that numbers depend on.
        options: how the evaluation was called.
        notes: what a reader must know, such as those of the tasks.
        paths: how models moved in the alignment-uniformity plane while they were trained.
    """

    models: Sequence[ModelEvaluation]
    aggregation: Aggregation = "all"
    protocol: str = ""
    gold: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    paths: Sequence[Path] = ()

    @property
    def warnings(self) -> list[str]:
        """What a reader must know, the notes and where post-processing costs accuracy."""
        return [*self.notes, *transfer_warnings(self.models)]

    def tables(self) -> Iterator[Table]:
        """Yield the tables of what was measured, the most important first."""
        models = self.models
        if any(model.sts for model in models):
            yield sts_table(models, aggregation=self.aggregation)
        if any(model.transfer for model in models):
            yield transfer_table(models, protocol=self.protocol)
        if any(model.geometry for model in models):
            yield geometry_table(models)
        if any(model.space for model in models):
            yield space_table(models)
        for name in dict.fromkeys(name for model in models for name in model.retrieval):
            yield retrieval_table(models, name)

    @cached_property
    def comparisons(self) -> list[Table]:
        """Each further model's paired comparison with the first; its resampling is done once."""
        if not (self.models[0].sts or self.models[0].transfer):
            return []
        first, *others = (items_of(model, self.gold) for model in self.models)
        return [
            comparison_table(first.model, other.model, compare(first, other))
            for other in others
            if first.cosines.keys() & other.cosines or first.correct.keys() & other.correct
        ]


def evaluation_results(evaluation: Evaluation) -> dict[str, Any]:
    """Return everything as what `simcse.io.results.write_results` writes."""
    return {
        "format": FORMAT,
        "aggregation": evaluation.aggregation,
        "protocol": evaluation.protocol,
        "data": evaluation.data,
        "versions": evaluation.versions,
        "options": evaluation.options,
        "notes": evaluation.warnings,
        "gold": {task: pack(scores) for task, scores in evaluation.gold.items()},
        "models": [_model_results(model) for model in evaluation.models],
    }


def evaluation_text(evaluation: Evaluation, render: Callable[[Table], str]) -> str:
    """Return all tables, rendered as Markdown or LaTeX, one after another."""
    tables = [*evaluation.tables(), *evaluation.comparisons]
    return "\n".join(render(table) for table in tables)


def evaluation_report(evaluation: Evaluation, *, title: str = "Evaluation") -> str:
    """Return the self-contained page: tables, figures, comparisons, settings, provenance."""
    models = evaluation.models
    blocks: list[str] = [*evaluation.warnings]
    if any(model.sts for model in models):
        blocks.append(_sts_section(evaluation))
    if any(model.transfer for model in models):
        text = (
            f"A linear classifier on frozen embeddings, {evaluation.protocol}. ± is the standard "
            "deviation over the folds of a cross-validated task."
        )
        table = html.table(transfer_table(models, protocol=evaluation.protocol))
        blocks.append(html.section("Transfer", text, table))
    blocks += _geometry_sections(evaluation)
    names = dict.fromkeys(name for model in models for name in model.retrieval)
    if names:
        found = [html.table(retrieval_table(models, name)) for name in names]
        blocks.append(html.section("Retrieval", *found))
    compared = [html.table(table) for table in evaluation.comparisons]
    if compared:
        blocks.append(html.section("Differences", COMPARED, *compared))
    blocks += _subsets(models)
    if any(model.seconds for model in models):
        blocks.append(html.section("Time", html.table(seconds_table(models))))
    return html.page(title, *blocks, *_origin(evaluation))


COMPARED = (
    "Each model against the first: the same test items are drawn again 1,000 times. An interval "
    "without 0, or a small p, says that the difference is not the luck of these items; it says "
    "nothing of other seeds of training."
)


def _sts_section(evaluation: Evaluation) -> html.Html:
    models, aggregation = evaluation.models, evaluation.aggregation
    text = (
        f"Spearman ×100 of cosines and gold scores. Aggregation “{aggregation}”: "
        f"{AGGREGATIONS[aggregation]}. A dash is a score that is missing or undefined."
    )
    blocks: list[str] = [text, html.table(sts_table(models, aggregation=aggregation))]
    if 1 < len(models) <= MOST_BARS:
        groups = {model.model: sts_scores(model, aggregation) for model in models}
        title = f"STS, Spearman ×100, aggregation {aggregation}"
        png = bars([TITLES[task] for task in STS_TASKS], groups, title=title)
        blocks.append(html.figure(png, f"Bars of the table above: {title}"))
    return html.section("STS", *blocks)


def rating_bands(cosines: NDArray[Any], gold: NDArray[Any]) -> dict[str, list[float]]:
    """Split cosines (N,) by their pairs' ratings 0 to 5, in bands of one."""
    level = np.clip(np.asarray(gold).astype(int), 0, BANDS - 1)
    values = np.asarray(cosines, np.float64)
    return {f"{band}-{band + 1}": values[level == band].tolist() for band in range(BANDS)}


def _geometry_sections(evaluation: Evaluation) -> Iterator[html.Html]:
    models = evaluation.models
    points = [
        PlanePoint(
            model.model,
            model.geometry.alignment,
            model.geometry.uniformity,
            sts_average(model.sts, aggregation=evaluation.aggregation),
        )
        for model in models
        if model.geometry
    ]
    if points or evaluation.paths:
        png = alignment_uniformity_plane(points, paths=evaluation.paths)
        alt = "Models by alignment and uniformity, as in the table above"
        scores = any(point.score is not None for point in points)
        caption = "Numbers in brackets and colors are STS averages." if scores else ""
        table = [html.table(geometry_table(models))] if points else []
        figure = html.figure(png, alt, caption)
        yield html.section("Alignment and uniformity", *table, figure)
    bands = {
        model.model: rating_bands(model.cosines["stsb"], evaluation.gold["stsb"])
        for model in models
        if "stsb" in model.cosines and "stsb" in evaluation.gold
    }
    if bands:
        caption = "STS-B pairs by the rating people gave them; the short line is the median."
        alt = "Hills of cosines, one for each band of ratings, for each model"
        figure = html.figure(rating_densities(bands), alt, caption)
        yield html.section("Cosines by rating", figure)
    lines = {model.model: model.space.singular_values for model in models if model.space}
    if lines:
        png = spectrum({name: values.tolist() for name, values in lines.items()})
        alt = "Singular values of each model's embeddings, from the largest"
        caption = "The flatter the curve, the more directions are used."
        figure = html.figure(png, alt, caption)
        yield html.section("Spectrum", html.table(space_table(models)), figure)


def _subsets(models: Sequence[ModelEvaluation]) -> list[html.Html]:
    found = dict.fromkeys(task for model in models for task in model.sts)
    known = [task for task in STS_TASKS if task in found]
    known += [task for task in found if task not in STS_TASKS]
    tables = [html.table(subset_table(models, task)) for task in known]
    folded = html.details("Every task by subset", *tables)
    return [html.section("Subsets", folded)] if tables else []


def _origin(evaluation: Evaluation) -> list[html.Html]:
    settings = {f"Settings of {model.model}": model.settings for model in evaluation.models}
    return provenance(
        {
            **settings,
            "Options": evaluation.options,
            "Data, SHA-256": evaluation.data,
            "Versions": evaluation.versions,
        }
    )


def seconds_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return what took how long, one model a row; encoding counts what was not cached."""
    parts = list(dict.fromkeys(part for model in models for part in model.seconds))
    columns = (Column("Model"), *(Column(f"{part}, s", decimals=1) for part in parts))
    rows = tuple((model.model, *(model.seconds.get(part) for part in parts)) for model in models)
    return Table("Time", columns, rows)


def _model_results(model: ModelEvaluation) -> dict[str, Any]:
    """Return one model's results; what each test item got is packed."""
    return {
        "model": model.model,
        "settings": model.settings,
        "base": model.base,
        "seconds": model.seconds,
        "sts": {task: asdict(result) for task, result in model.sts.items()},
        "geometry": None if model.geometry is None else asdict(model.geometry),
        "space": None if model.space is None else asdict(model.space),
        "transfer": {
            task: {key: value for key, value in asdict(result).items() if key != "correct"}
            for task, result in model.transfer.items()
        },
        "retrieval": {name: asdict(result) for name, result in model.retrieval.items()},
        "cosines": {task: pack(values) for task, values in model.cosines.items()},
        "correct": {task: pack(result.correct) for task, result in model.transfer.items()},
    }

"""The report of an evaluation as HTML, JSON, Markdown and LaTeX."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simcse.evaluate.sts import STS_TASKS, Aggregation, sts_average
from simcse.evaluate.suite import EvaluationSuite, ModelEvaluation
from simcse.io.files import write_text
from simcse.io.results import write_results
from simcse.report import html
from simcse.report.comparison import TITLES, ItemScores, array_to_text, model_comparison_table
from simcse.report.evaluation_tables import (
    geometry_table,
    retrieval_table,
    seconds_table,
    space_table,
    sts_scores,
    sts_table,
    subset_table,
    transfer_table,
    transfer_warnings,
)
from simcse.report.plots import (
    PlanePoint,
    Trajectory,
    alignment_uniformity_plane,
    bars,
    rating_densities,
    spectrum,
)
from simcse.report.runs import provenance
from simcse.report.tables import Table, to_latex, to_markdown
from simcse.report.versions import versions

AGGREGATIONS = {
    "all": "one correlation over each task's concatenated subsets",
    "mean": "the mean over each task's subsets",
    "wmean": "the mean over each task's subsets, weighted by their pairs",
}
COMPARED = (
    "Each model is compared with the first: the same test items are resampled 1,000 times. An "
    "interval that excludes 0, or a small p, means that the difference is unlikely to come from "
    "the choice of test items. Variation between training seeds is not included."
)
MAX_BAR_MODELS = 4  # more models are compared in the table only
BANDS = 5  # of the STS-B ratings 0 to 5, as the paper's figure
FORMAT = 1


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Models evaluated on the same data."""

    # one or more; the first is the one that others are compared with
    models: Sequence[ModelEvaluation]
    aggregation: Aggregation = "all"  # of the STS subsets
    protocol: str = ""  # description of the transfer protocol
    gold: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # ratings (N,) of each STS task
    # SHA-256 of each file that was read, by its name
    data: Mapping[str, str] = field(default_factory=dict)
    # of the packages that numbers depend on
    versions: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)  # the options of the evaluation
    notes: Sequence[str] = ()  # notes for the reader, such as those of the tasks
    trajectories: Sequence[Trajectory] = ()  # alignment and uniformity of models during training

    @classmethod
    def of(
        cls,
        suite: EvaluationSuite,
        models: Sequence[ModelEvaluation],
        **values: Any,  # noqa: ANN401 - fields
    ) -> "Evaluation":
        """Return the results of models on a suite, with the provenance of its data."""
        rated = [*suite.sts.values(), *([suite.geometry] if suite.geometry else [])]
        data = {Path(task.path).name: task.sha256 for task in rated}
        notes = [note for task in rated for note in task.notes]
        for labeled in suite.transfer:
            data |= {part.path.name: part.sha256 for part in labeled.splits.values()}
            notes += labeled.notes
        return cls(
            models,
            protocol=suite.protocol.description,
            gold={name: task.scores for name, task in suite.sts.items()},
            data=data | values.pop("data", {}),
            versions=versions(),
            notes=list(dict.fromkeys(notes)),
            **values,
        )

    @property
    def warnings(self) -> list[str]:
        """The notes, and a warning wherever post-processing costs accuracy."""
        return [*self.notes, *transfer_warnings(self.models)]

    @property
    def retrieval_sets(self) -> list[str]:
        """The names of the retrieval sets."""
        return list(dict.fromkeys(name for model in self.models for name in model.retrieval))

    def tables(self) -> Iterator[Table]:
        """Yield the tables of results, the most important first."""
        models = self.models
        if any(model.sts for model in models):
            yield sts_table(models, aggregation=self.aggregation)
        if any(model.transfer for model in models):
            yield transfer_table(models, protocol=self.protocol)
        if any(model.geometry for model in models):
            yield geometry_table(models)
        if any(model.space for model in models):
            yield space_table(models)
        for name in self.retrieval_sets:
            yield retrieval_table(models, name)

    @cached_property
    def comparisons(self) -> list[Table]:
        """Each further model's paired comparison with the first, computed once."""
        if not (self.models[0].sts or self.models[0].transfer):
            return []
        first, *others = (ItemScores.of(model, self.gold) for model in self.models)
        return [
            model_comparison_table(first, other)
            for other in others
            if first.cosines.keys() & other.cosines or first.correct.keys() & other.correct
        ]


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write report.html, results.json, results.md and results.tex.

    Raises:
        ResourceError: the folder cannot be written.
    """
    write_text(folder / "report.html", evaluation_report(evaluation))
    write_text(folder / "results.md", evaluation_text(evaluation, to_markdown))
    write_text(folder / "results.tex", evaluation_text(evaluation, to_latex))
    write_results(folder / "results.json", evaluation_results(evaluation))


def evaluation_results(evaluation: Evaluation) -> dict[str, Any]:
    """Return all results in the form that `simcse.io.results.write_results` writes."""
    return {
        "format": FORMAT,
        "aggregation": evaluation.aggregation,
        "protocol": evaluation.protocol,
        "data": evaluation.data,
        "versions": evaluation.versions,
        "options": evaluation.options,
        "notes": evaluation.warnings,
        "gold": {task: array_to_text(scores) for task, scores in evaluation.gold.items()},
        "models": [_model_results(model) for model in evaluation.models],
    }


def evaluation_text(evaluation: Evaluation, render: Callable[[Table], str]) -> str:
    """Return all tables, rendered as Markdown or LaTeX, one after another."""
    return "\n".join(map(render, [*evaluation.tables(), *evaluation.comparisons]))


def evaluation_report(evaluation: Evaluation, *, title: str = "Evaluation") -> str:
    """Return the self-contained page: tables, figures, comparisons, settings, provenance."""
    models = evaluation.models
    blocks: list[str | Table] = [*evaluation.warnings]
    if any(model.sts for model in models):
        blocks.append(_sts_section(evaluation))
    if any(model.transfer for model in models):
        text = (
            f"A linear classifier on frozen embeddings, {evaluation.protocol}. ± is the standard "
            "deviation over the folds of a cross-validated task."
        )
        table = transfer_table(models, protocol=evaluation.protocol)
        blocks.append(html.section("Transfer", text, table))
    blocks += _geometry_sections(evaluation)
    if evaluation.retrieval_sets:
        tables = [retrieval_table(models, name) for name in evaluation.retrieval_sets]
        blocks.append(html.section("Retrieval", *tables))
    if evaluation.comparisons:
        blocks.append(html.section("Differences", COMPARED, *evaluation.comparisons))
    blocks += _subsets(models)
    if any(model.seconds for model in models):
        blocks.append(html.section("Time", seconds_table(models)))
    settings = {f"Settings of {model.model}": model.settings for model in models}
    blocks += provenance(
        {
            **settings,
            "Options": evaluation.options,
            "Data, SHA-256": evaluation.data,
            "Versions": evaluation.versions,
        }
    )
    return html.page(title, *blocks)


def _sts_section(evaluation: Evaluation) -> html.Html:
    models, aggregation = evaluation.models, evaluation.aggregation
    text = (
        f"Spearman ×100 of cosines and gold scores. Aggregation “{aggregation}”: "
        f"{AGGREGATIONS[aggregation]}. A dash is a score that is missing or undefined."
    )
    blocks: list[str | Table] = [text, sts_table(models, aggregation=aggregation)]
    if 1 < len(models) <= MAX_BAR_MODELS:
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
    if points or evaluation.trajectories:
        png = alignment_uniformity_plane(points, trajectories=evaluation.trajectories)
        scores = any(point.score is not None for point in points)
        caption = "Numbers in brackets and colors are STS averages." if scores else ""
        table = [geometry_table(models)] if points else []
        figure = html.figure(png, "Models by alignment and uniformity, as in the table", caption)
        yield html.section("Alignment and uniformity", *table, figure)
    bands = {
        model.model: rating_bands(model.cosines["stsb"], evaluation.gold["stsb"])
        for model in models
        if "stsb" in model.cosines and "stsb" in evaluation.gold
    }
    if bands:
        caption = "STS-B pairs by their human rating; the short line is the median."
        alt = "Densities of cosines by band of ratings, for each model"
        figure = html.figure(rating_densities(bands), alt, caption)
        yield html.section("Cosines by rating", figure)
    lines = {model.model: model.space.singular_values for model in models if model.space}
    if lines:
        png = spectrum({name: values.tolist() for name, values in lines.items()})
        alt = "Singular values of each model's embeddings, from the largest"
        caption = "A flatter curve uses more directions."
        figure = html.figure(png, alt, caption)
        yield html.section("Spectrum", space_table(models), figure)


def _subsets(models: Sequence[ModelEvaluation]) -> list[html.Html]:
    found = dict.fromkeys(task for model in models for task in model.sts)
    tasks = [task for task in STS_TASKS if task in found]
    tasks += [task for task in found if task not in STS_TASKS]
    tables = [subset_table(models, task) for task in tasks]
    return [html.section("Subsets", html.details("Every task by subset", *tables))] * bool(tables)


def _model_results(model: ModelEvaluation) -> dict[str, Any]:
    """Return one model's results, with the scores of single test items as text."""
    found = asdict(model)
    texts = {task: array_to_text(values) for task, values in model.cosines.items()}
    correct = {task: array_to_text(each.pop("correct")) for task, each in found["transfer"].items()}
    return {**found, "cosines": texts, "correct": correct}

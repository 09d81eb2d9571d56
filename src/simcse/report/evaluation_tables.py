"""The tables of an evaluation, one model a row."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from simcse.evaluate.measure import ModelEvaluation
from simcse.evaluate.retrieval import RetrievalResult
from simcse.evaluate.spectrum import Space
from simcse.evaluate.sts import STS_TASKS, Aggregation, Correlation, StsResult, sts_average
from simcse.evaluate.transfer import TRANSFER_TASKS, TransferResult, transfer_average
from simcse.report.comparison import TITLES, Items
from simcse.report.tables import Column, Spread, Table, Value

WORSE = 0.1  # of a transfer average, x100: less is not worth a warning


def items_of(model: ModelEvaluation, gold: Mapping[str, NDArray[Any]]) -> Items:
    """Return what each test item got from a model, given the ratings of the STS tasks."""
    correct = {task: result.correct for task, result in model.transfer.items()}
    return Items(model.model, gold, model.cosines, correct)


def sts_table(models: Sequence[ModelEvaluation], *, aggregation: Aggregation = "all") -> Table:
    """Return the paper's table of seven tasks and their average, one model a row."""
    titles = [*(TITLES[task] for task in STS_TASKS), "Avg."]
    columns = (Column("Model"), *(Column(title, best="highest") for title in titles))
    rows = tuple(
        (
            model.model,
            *sts_scores(model, aggregation),
            sts_average(model.sts, aggregation=aggregation),
        )
        for model in models
    )
    return Table(f"STS, Spearman ×100, aggregation {aggregation}", columns, rows)


def sts_scores(model: ModelEvaluation, aggregation: Aggregation) -> list[float | None]:
    """Return a model's score on each of the paper's seven tasks."""
    found = (model.sts.get(task) for task in STS_TASKS)
    return [None if result is None else result.spearman(aggregation) for result in found]


def subset_table(models: Sequence[ModelEvaluation], task: str) -> Table:
    """Return one task's Spearman x100 by subset, then by aggregation, one model a column."""
    parts = [_parts(model.sts[task]) if task in model.sts else {} for model in models]
    pairs = {name: found.pairs for part in parts for name, found in part.items()}
    rows = tuple(
        (name, count, *(part[name].spearman if name in part else None for part in parts))
        for name, count in pairs.items()
    )
    columns = (Column("Subset"), Column("Pairs"), *(Column(model.model) for model in models))
    return Table(TITLES.get(task, task), columns, rows)


def transfer_table(models: Sequence[ModelEvaluation], *, protocol: str) -> Table:
    """Return accuracy on the seven tasks, F1 of MRPC and the average, one model a row.

    A cross-validated task has the standard deviation over its folds. ``protocol`` says which one.
    """
    titles = [*(TITLES[task] for task in TRANSFER_TASKS), "MRPC F1", "Avg."]
    columns = (Column("Model"), *(Column(title, best="highest") for title in titles))
    rows = tuple(
        (
            model.model,
            *(_accuracy(model.transfer.get(task)) for task in TRANSFER_TASKS),
            model.transfer["mrpc"].f1 if "mrpc" in model.transfer else None,
            transfer_average(model.transfer),
        )
        for model in models
    )
    return Table(f"Transfer, accuracy ×100, {protocol}", columns, rows)


def geometry_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return alignment and uniformity, one measured model a row.

    No value is in bold: a collapsed model aligns perfectly, so that neither is best alone.
    """
    titles = ("Alignment", "Uniformity", "Positive pairs", "Sentences", "Zero vectors")
    columns = (Column("Model"), *(Column(title, decimals=3) for title in titles))
    rows = tuple(
        (
            model.model,
            _with_margin(model.space, "alignment", found.alignment),
            _with_margin(model.space, "uniformity", found.uniformity),
            found.positives,
            found.sentences,
            found.zero_vectors,
        )
        for model in models
        if (found := model.geometry)
    )
    return Table("On unit vectors; lower is better, of both at once", columns, rows)


def space_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return the shape of each measured space, one model a row."""
    columns = (
        Column("Model"),
        Column("Mean cosine", decimals=3),
        Column("Negative cosines, %", decimals=1),
        Column("Effective rank", decimals=1),
        Column("Dimensions"),
        Column("Energy in 1 direction, %", decimals=1),
        Column("in 10, %", decimals=1),
        Column("Hubness", decimals=2),
    )
    rows = tuple(
        (
            model.model,
            _with_margin(found, "mean_cosine", found.mean_cosine),
            100 * found.negative_share,
            _with_margin(found, "effective_rank", found.effective_rank),
            len(found.singular_values),
            _with_margin(found, "top_1", found.top_1, factor=100),
            _with_margin(found, "top_10", found.top_10, factor=100),
            found.hubness,
        )
        for model in models
        if (found := model.space)
    )
    return Table("The space of the sentences; ± is half a 95 % bootstrap interval", columns, rows)


def retrieval_table(models: Sequence[ModelEvaluation], name: str) -> Table:
    """Return one set's retrieval scores x100, one model a row."""
    found = [(model.model, model.retrieval[name]) for model in models if name in model.retrieval]
    k = found[0][1].k if found else 10
    columns = (
        Column("Model"),
        Column("MRR", best="highest"),
        Column(f"Recall@{k}", best="highest"),
        Column(f"nDCG@{k}", best="highest"),
        Column("Queries"),
        Column("Documents"),
    )
    rows = tuple(
        (label, *_ranking_scores(result), result.queries, result.documents)
        for label, result in found
    )
    return Table(f"{name}, ×100; ± is half a 95 % bootstrap interval", columns, rows)


def transfer_warnings(models: Sequence[ModelEvaluation]) -> Iterator[str]:
    """Say where post-processing costs accuracy, for models whose bare form is here, too."""
    bare = {
        model.base: transfer_average(model.transfer)
        for model in models
        if model.base and model.settings.get("postprocess") == "none"
    }
    for model in models:
        before, after = bare.get(model.base), transfer_average(model.transfer)
        layer = model.settings.get("postprocess", "none")
        if before is not None and after is not None and layer != "none" and after < before - WORSE:
            yield (
                f"{model.model}: {layer} lowers the transfer average from {before:.2f} to "
                f"{after:.2f}, as Gao et al. 2021 found of such layers (appendix E)"
            )


def _accuracy(result: TransferResult | None) -> Value:
    if result is None or result.deviation is None:
        return None if result is None else result.accuracy
    return Spread(result.accuracy, result.deviation)


def _with_margin(space: Space | None, name: str, value: float, *, factor: float = 1) -> Value:
    """Return a measure with half its interval, where it has one."""
    if space is None or name not in space.intervals:
        return factor * value
    low, high = space.intervals[name]
    return Spread(factor * value, factor * (high - low) / 2)


def _ranking_scores(result: RetrievalResult) -> list[Value]:
    scores = {"mrr": result.mrr, "recall": result.recall, "ndcg": result.ndcg}
    return [
        Spread(100 * value, 50 * (result.intervals[name][1] - result.intervals[name][0]))
        for name, value in scores.items()
    ]


def _parts(result: StsResult) -> dict[str, Correlation]:
    """Return a task's correlations under the names they have in a table."""
    whole = {f"aggregation {name}": found for name, found in result.aggregations.items()}
    return {**result.subsets, **whole}

"""The tables of an evaluation, one model a row."""

from collections.abc import Iterator, Sequence

from simcse.evaluate.reference_scores import ReferenceCheck
from simcse.evaluate.spectrum import Space
from simcse.evaluate.sts import STS_TASKS, Aggregation, sts_average
from simcse.evaluate.suite import ModelEvaluation
from simcse.evaluate.transfer import TRANSFER_TASKS, TransferResult, transfer_average
from simcse.report.comparison import TITLES
from simcse.report.tables import Column, Spread, Table, Value

MIN_LOSS = 0.1  # of a transfer average, x100: less is not worth a warning


def sts_table(models: Sequence[ModelEvaluation], *, aggregation: Aggregation = "all") -> Table:
    """Return the paper's table of seven tasks and their average."""
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
    by_model = []
    for model in models:
        result = model.sts.get(task)
        whole = result.aggregations.items() if result else ()
        subsets = result.subsets if result else {}
        by_model.append({**subsets, **{f"aggregation {name}": found for name, found in whole}})
    pairs = {name: found.pairs for scores in by_model for name, found in scores.items()}
    rows = tuple(
        (name, count, *(scores[name].spearman if name in scores else None for scores in by_model))
        for name, count in pairs.items()
    )
    columns = (Column("Subset"), Column("Pairs"), *(Column(model.model) for model in models))
    return Table(TITLES.get(task, task), columns, rows)


def transfer_table(models: Sequence[ModelEvaluation], *, protocol: str) -> Table:
    """Return accuracy on the seven tasks, F1 of MRPC and the average.

    A cross-validated task has the standard deviation over its folds.
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
    """Return alignment and uniformity.

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
    return Table("Alignment and uniformity on unit vectors; lower is better", columns, rows)


def space_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return the statistics of each embedding space."""
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
    return Table("Embedding space; ± is half a 95 % bootstrap interval", columns, rows)


def retrieval_table(models: Sequence[ModelEvaluation], name: str) -> Table:
    """Return one set's retrieval scores x100."""
    found = [(model.model, model.retrieval[name]) for model in models if name in model.retrieval]
    k = found[0][1].k if found else 10
    titles = {"mrr": "MRR", "recall": f"Recall@{k}", "ndcg": f"nDCG@{k}"}
    scored = (Column(title, best="highest") for title in titles.values())
    columns = (Column("Model"), *scored, Column("Queries"), Column("Documents"))
    rows: list[tuple[Value, ...]] = []
    for label, result in found:
        scores = [
            Spread(100 * getattr(result, metric), 50 * (high - low))
            for metric in titles
            for low, high in [result.intervals[metric]]
        ]
        rows.append((label, *scores, result.queries, result.documents))
    return Table(f"{name}, ×100; ± is half a 95 % bootstrap interval", columns, tuple(rows))


def seconds_table(models: Sequence[ModelEvaluation]) -> Table:
    """Return the time of each step; encoding counts only sentences that were not cached."""
    steps = list(dict.fromkeys(step for model in models for step in model.seconds))
    columns = (Column("Model"), *(Column(f"{step}, s", decimals=1) for step in steps))
    rows = tuple((model.model, *(model.seconds.get(step) for step in steps)) for model in models)
    return Table("Time", columns, rows)


def reference_table(checks: Sequence[ReferenceCheck]) -> Table:
    """Return the expected and the found score of each task, and whether they agree."""
    titles = ("Task", "Expected", "Found", "Tolerance", "Result")
    rows = tuple(
        (
            reference_title(check),
            check.expected,
            check.found,
            check.tolerance,
            "passed" if check.passed else "FAILED",
        )
        for check in checks
    )
    title = "all-MiniLM-L6-v2: STS, and transfer by the fast protocol"
    return Table(title, tuple(map(Column, titles)), rows)


def reference_title(check: ReferenceCheck) -> str:
    """Return the title of a checked task."""
    return TITLES.get(check.task, "SICK-R, all")


def transfer_warnings(models: Sequence[ModelEvaluation]) -> Iterator[str]:
    """Warn where post-processing costs accuracy, if the model without it was evaluated too."""
    bare = {
        model.base: transfer_average(model.transfer)
        for model in models
        if model.base and model.settings.get("postprocess") == "none"
    }
    for model in models:
        before, after = bare.get(model.base), transfer_average(model.transfer)
        layer = model.settings.get("postprocess", "none")
        if before is None or after is None or layer == "none" or after >= before - MIN_LOSS:
            continue
        yield (
            f"{model.model}: {layer} lowers the transfer average from {before:.2f} to "
            f"{after:.2f}, as Gao et al. 2021 report for such layers (appendix E)."
        )


def _accuracy(result: TransferResult | None) -> Value:
    if result is None or result.deviation is None:
        return None if result is None else result.accuracy
    return Spread(result.accuracy, result.deviation)


def _with_margin(space: Space | None, name: str, value: float, *, factor: float = 1) -> Value:
    """Return a value with half its interval, where it has one."""
    if space is None or name not in space.intervals:
        return factor * value
    low, high = space.intervals[name]
    return Spread(factor * value, factor * (high - low) / 2)

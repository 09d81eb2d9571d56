"""The result of a quickstart in a table, in sentences and as a page."""

from pathlib import Path

from simcse.config import to_dict
from simcse.evaluate.bootstrap import PairedDifference
from simcse.quickstart.run import RECALL_AT, DocstringMetrics, QuickstartResult
from simcse.report import html
from simcse.report.plots import (
    Curve,
    PlanePoint,
    alignment_uniformity_plane,
    cosine_histogram,
    curves,
)
from simcse.report.runs import key_values
from simcse.report.tables import Column, Table, Value
from simcse.report.versions import versions

CURVES = {  # by the event that has the value
    "loss": ("step", "Training loss"),
    "mrr": ("eval", "MRR on the dev docstrings"),
    "alignment": ("eval", "Alignment on the dev docstrings"),
    "uniformity": ("eval", "Uniformity on the dev docstrings"),
}


def named_models(result: QuickstartResult) -> dict[str, DocstringMetrics]:
    """Return the metrics of the distinct models by their names in tables."""
    name, training = Path(result.model).name, result.training
    best_step, steps = training.best_step, training.steps
    last = {f"last/: step {steps}": result.last}
    if best_step == 0:
        return {f"before, and best/: {name}": result.start} | last
    models = {f"before: {name}": result.start, f"after, best/: step {best_step}": result.best}
    return models if best_step == steps else models | last


def metrics_table(result: QuickstartResult) -> Table:
    """Return the metrics before and after the training."""
    columns = (
        Column("Model"),
        Column("MRR", 3, best="highest"),
        Column(f"Recall@{RECALL_AT}", 3, best="highest"),
        Column("Alignment", 3),
        Column("Uniformity", 3),
    )
    rows: tuple[tuple[Value, ...], ...] = tuple(
        (name, *found.scores.values()) for name, found in named_models(result).items()
    )
    title = f"Finding the body of {len(result.corpus.test)} held-out docstrings by their summary"
    return Table(title, columns, rows)


def conclusions(result: QuickstartResult) -> list[str]:
    """Return a sentence per trained model: whether it is better than the start model."""
    best_step, steps = result.training.best_step, result.training.steps
    last = f"last/ compared with the start model: {verdict(result.change(result.last))}"
    if best_step == 0:
        return ["best/ is the start model: no step was better on the dev docstrings.", last]
    best = f"best/ compared with the start model: {verdict(result.change(result.best))}"
    return [best] if best_step == steps else [best, last]


def verdict(change: PairedDifference) -> str:
    """Return whether retrieval became better or worse; neither if 0 is in the interval.

    Example:
        >>> verdict(PairedDifference(50.0, 53.0, 1.0, 5.0, 0.01))
        'better, MRR +0.030 (95 % interval +0.010 to +0.050).'
    """
    mean, low, high = (
        round(x / 100, 3) + 0.0 for x in (change.difference, change.low, change.high)
    )
    word = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return f"{word}, MRR {mean:+.3f} (95 % interval {low:+.3f} to {high:+.3f})."


def next_commands(output: Path) -> list[str]:
    """Return commands to try next; each can be pasted into a shell, in this order."""
    paths = (f"{output / name}" for name in ("best", "sentences.txt"))
    best, sentences = (f'"{path}"' if " " in path else path for path in paths)
    return [
        f'simcse similarity "Open a file." "Read from disk." --model {best}',
        f"simcse encode {sentences} --model {best} --output vectors.npy",
        f"simcse train --train {sentences} --output runs/mine eval.dev=none",
        "simcse data fetch",
        "simcse evaluate sts mini",
        "simcse --help",
    ]


def quickstart_report(result: QuickstartResult) -> str:
    """Return the page: before and after, curves, distributions, answers and settings."""
    corpus, training = result.corpus, result.training
    settings = key_values("Settings", to_dict(result.config))
    return html.page(
        "SimCSE quickstart",
        f"Unsupervised SimCSE, without labels: {training.steps} steps on "
        f"{len(corpus.sentences):,} sentences of the documentation that comes with Python, "
        f"starting from the model “{result.model}”.",
        html.section(
            "Before and after",
            *conclusions(result),
            html.table(metrics_table(result)),
            "Each summary line is a query for the body of its own docstring among all "
            f"{len(corpus.test)} bodies. MRR is the mean of 1 / rank, and recall is the share "
            "found among the first ten; higher is better. Alignment is the mean squared distance "
            "between a summary and its body, and uniformity measures how evenly all texts are "
            "distributed; lower is better, for both together. No sentence of a held-out docstring "
            f"was trained on, and {len(corpus.dev)} other docstrings chose the best step.",
        ),
        html.section(
            "During training", "The dotted line is the best step.", html.gallery(*_curves(result))
        ),
        html.section("The embedding space", _plane(result), _histograms(result)),
        html.section("Semantic search", *_answers(result)),
        html.section(
            "Settings and versions",
            html.details("Settings", html.table(settings)),
            html.details("Versions", html.table(key_values("Versions", versions()))),
            f"The quickstart took {result.seconds:.0f} seconds, {training.seconds:.0f} of them "
            "for training.",
        ),
    )


def _answers(result: QuickstartResult) -> list[html.Html]:
    columns = (Column("Cosine", 3), Column("Sentence"))
    return [
        html.table(Table(question, columns, tuple((score, str(text)) for text, score in found)))
        for question, found in result.answers.items()
    ]


def _curves(result: QuickstartResult) -> list[html.Html]:
    figures = []
    for key, (event, title) in CURVES.items():
        rows = [row for row in result.log if row["event"] == event]
        values = [row[key] for row in rows]
        curve = Curve(title, [row["step"] for row in rows], values)
        png = curves([curve], title=title, best_step=result.training.best_step)
        alt = f"{title} by step: {values[0]:.3f} first, {values[-1]:.3f} last"
        figures.append(html.figure(png, alt))
    return figures


def _plane(result: QuickstartResult) -> html.Html:
    start = (result.start.alignment, result.start.uniformity)
    points = [
        PlanePoint(
            name,
            found.alignment,
            found.uniformity,
            before=None if found is result.start else start,
        )
        for name, found in named_models(result).items()
    ]
    return html.figure(
        alignment_uniformity_plane(points),
        "The models of the table above by alignment and uniformity",
        "An arrow leads from the start model. Both axes are better toward the lower left.",
    )


def _histograms(result: QuickstartResult) -> html.Html:
    figures = []
    for name, found in named_models(result).items():
        groups = {"own body": found.positive_cosines, "other body": found.random_cosines}
        means = ", ".join(f"{label} mean {cosines.mean():.2f}" for label, cosines in groups.items())
        png = cosine_histogram({label: list(cosines) for label, cosines in groups.items()})
        alt = f"Cosines of a summary line and a body, {name}: {means}"
        figures.append(html.figure(png, alt, name))
    return html.gallery(*figures)

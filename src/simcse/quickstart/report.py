"""The page of a quickstart."""

from collections.abc import Mapping

from simcse.config import to_dict
from simcse.quickstart.measure import Hit, Measures
from simcse.quickstart.outcome import Outcome
from simcse.report import html
from simcse.report.plots import (
    Curve,
    PlanePoint,
    alignment_uniformity_plane,
    cosine_histogram,
    curves,
)
from simcse.report.runs import key_values
from simcse.report.tables import Column, Table
from simcse.report.versions import versions

CURVES = {  # by the event they are logged in
    "loss": ("step", "Training loss"),
    "mrr": ("eval", "MRR, development part"),
    "alignment": ("eval", "Alignment, development part"),
    "uniformity": ("eval", "Uniformity, development part"),
}


def quickstart_report(outcome: Outcome) -> str:
    """Return the page: before and after, curves, distributions, answers and settings."""
    corpus, training = outcome.corpus, outcome.training
    return html.page(
        "SimCSE quickstart",
        f"Unsupervised SimCSE, without any label: {training.steps} steps on "
        f"{len(corpus.sentences):,} sentences of the documentation that comes with Python, "
        f"starting from the model “{outcome.model}”.",
        html.section(
            "Before and after",
            *outcome.conclusions(),
            html.table(outcome.table()),
            "Each summary line looks for the body of its own docstring among all "
            f"{len(corpus.test)} bodies. MRR is the mean of 1 / rank, recall the share found among "
            "the first ten: higher is better. Alignment is the mean squared distance of a summary "
            "and its body, uniformity says how evenly all texts spread: lower is better, of both "
            "at once. No sentence of a held-out docstring was trained on, and the best step was "
            f"chosen by {len(corpus.dev)} other docstrings.",
        ),
        html.section(
            "While training", "The dotted line is the best step.", html.gallery(*_curves(outcome))
        ),
        html.section("The embedding space", _plane(outcome), _histograms(outcome)),
        html.section("Semantic search", *_answers(outcome.answers)),
        html.section(
            "Settings and versions",
            html.details("Settings", html.table(key_values("Settings", to_dict(outcome.config)))),
            html.details("Versions", html.table(key_values("Versions", versions()))),
            f"All of it took {outcome.seconds:.0f} seconds, the training {training.seconds:.0f}.",
        ),
    )


def _answers(answers: Mapping[str, list[Hit]]) -> list[html.Html]:
    columns = (Column("Cosine", 3), Column("Sentence"))
    return [
        html.table(
            Table(
                question,
                columns,
                tuple((hit.cosine, str(hit.sentence)) for hit in hits),
            )
        )
        for question, hits in answers.items()
    ]


def _curves(outcome: Outcome) -> list[html.Html]:
    figures = []
    for key, (event, title) in CURVES.items():
        rows = [row for row in outcome.log if row["event"] == event]
        values = [row[key] for row in rows]
        curve = Curve(title, [row["step"] for row in rows], values)
        png = curves([curve], title=title, best_step=outcome.training.best_step)
        alt = f"{title} by step: {values[0]:.3f} at first, {values[-1]:.3f} at last"
        figures.append(html.figure(png, alt))
    return figures


def _plane(outcome: Outcome) -> html.Html:
    start = (outcome.start.alignment, outcome.start.uniformity)
    points = [
        PlanePoint(
            name,
            found.alignment,
            found.uniformity,
            before=None if found is outcome.start else start,
        )
        for name, found in outcome.models.items()
    ]
    return html.figure(
        alignment_uniformity_plane(points),
        "The models of the table above by alignment and uniformity",
        "An arrow leads from the start model; both axes are better toward the lower left.",
    )


def _histograms(outcome: Outcome) -> html.Html:
    return html.gallery(*(_histogram(name, found) for name, found in outcome.models.items()))


def _histogram(name: str, found: Measures) -> html.Html:
    groups = {"own body": found.positive_cosines, "other body": found.random_cosines}
    means = ", ".join(f"{label} mean {cosines.mean():.2f}" for label, cosines in groups.items())
    png = cosine_histogram({label: list(cosines) for label, cosines in groups.items()})
    return html.figure(png, f"Cosines of a summary line and a body, {name}: {means}", name)

"""Tables and figures of the bound on the largest eigenvalue."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from simcse.evaluate.isotropy import Isotropy, count_falls
from simcse.io.files import write_text
from simcse.io.results import write_results
from simcse.report import html
from simcse.report.plots import Curve, curves
from simcse.report.tables import Column, Table

BySteps = Mapping[int, Isotropy]  # the evaluations of one training

MEANING = (
    "m sentences, the cosines of all m x m pairs. Jensen: log-mean-exp is at least mean / τ. "
    "The largest eigenvalue of the matrix of cosines is at least m times their mean; where no "
    "cosine is negative it is at most their sum. The paper argues that lowering the first, as "
    "the loss does, lowers the last."
)
_COLUMNS = (
    Column("Model"),
    Column("m"),
    Column("Log-mean-exp", 4),
    Column("Mean / τ", 4),
    Column("Jensen holds"),
    Column("m x mean", 2),
    Column("Largest eigenvalue", 2),
    Column("At least m x mean"),
    Column("Sum", 1),
    Column("At most the sum"),
    Column("Negative cosines, %", 3),
)


@dataclass(frozen=True)
class IsotropyEvaluation:
    """The bound for models, and along trainings."""

    models: Mapping[str, Isotropy] = field(default_factory=dict)  # by name
    # by the name of the run folder, then by step
    runs: Mapping[str, BySteps] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """Return one table of all models and steps, and one of the trainings."""
        steps = {
            f"{run} step {step}": found
            for run, by_step in self.runs.items()
            for step, found in by_step.items()
        }
        return [isotropy_table({**self.models, **steps}), *self._training()]

    def _training(self) -> list[Table]:
        return [training_table(self.runs)] if self.runs else []

    def write(self, folder: Path) -> None:
        """Write results.json and report.html, which has a table and curves for each training.

        Raises:
            ResourceError: the folder cannot be written.
        """
        models = {name: asdict(found) for name, found in self.models.items()}
        runs = {
            run: {str(step): asdict(found) for step, found in by_step.items()}
            for run, by_step in self.runs.items()
        }
        write_results(folder / "results.json", {"models": models, "runs": runs})
        tables = [isotropy_table(self.models)] if self.models else []
        for by_step in self.runs.values():
            tables.append(isotropy_table({f"step {n}": found for n, found in by_step.items()}))
        tables += self._training()
        blocks = [MEANING, *(html.section(table.title, table) for table in tables)]
        figures = [figure for name, steps in self.runs.items() for figure in _figures(name, steps)]
        if figures:
            blocks.append(html.section("Curves", html.gallery(*figures)))
        write_text(folder / "report.html", html.page("Isotropy", *blocks))


def isotropy_table(found: Mapping[str, Isotropy]) -> Table:
    """Return a row a model, with each step of the bound and whether it holds."""
    rows = tuple(
        (
            name,
            each.sentences,
            each.log_mean_exp,
            each.mean / each.temperature,
            _yes(each.jensen_holds),
            each.sentences * each.mean,
            each.largest_eigenvalue,
            _yes(each.lower_bound_holds),
            each.total,
            _yes(each.upper_bound_holds) + (" (not required)" if each.negative_share else ""),
            100 * each.negative_share,
        )
        for name, each in found.items()
    )
    return Table("The bound on the largest eigenvalue", _COLUMNS, rows)


def training_table(runs: Mapping[str, BySteps]) -> Table:
    """Return a row a training: whether the largest eigenvalue falls along it."""
    columns = (
        Column("Training"),
        Column("Evaluations"),
        Column("Log-mean-exp, first", 4),
        Column("Log-mean-exp, last", 4),
        Column("Largest eigenvalue, first", 2),
        Column("Largest eigenvalue, last", 2),
        Column("Decreases"),
        Column("Falls overall"),
    )
    rows = []
    for name, by_step in runs.items():
        first, *_, last = by_step.values()
        values = [found.largest_eigenvalue for found in by_step.values()]
        ends = (first.log_mean_exp, last.log_mean_exp, values[0], values[-1])
        decreases = f"{count_falls(values)} of {len(values) - 1}"
        rows.append((name, len(values), *ends, decreases, _yes(values[-1] < values[0])))
    return Table("Along training", columns, tuple(rows))


def _figures(name: str, by_step: BySteps) -> Iterator[html.Html]:
    found = list(by_step.values())
    pairs = {
        "Jensen": {
            "log-mean-exp": [each.log_mean_exp for each in found],
            "mean / τ": [each.mean / each.temperature for each in found],
        },
        "Eigenvalue": {
            "largest eigenvalue": [each.largest_eigenvalue for each in found],
            "m x mean": [each.sentences * each.mean for each in found],
        },
    }
    for title, lines in pairs.items():
        png = curves(
            [Curve(label, list(by_step), values) for label, values in lines.items()],
            title=f"{title}: {name}",
        )
        ends = [f"{label} from {vs[0]:.4g} to {vs[-1]:.4g}" for label, vs in lines.items()]
        yield html.figure(png, f"By step of {name}: {', '.join(ends)}")


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"

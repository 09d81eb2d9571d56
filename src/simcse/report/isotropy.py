"""Tables and figures of the bound on the largest eigenvalue."""

from collections.abc import Mapping, Sequence

from simcse.evaluate.isotropy import Isotropy, falls
from simcse.report import html
from simcse.report.plots import Curve, curves
from simcse.report.tables import Column, Table

Looks = Mapping[int, Isotropy]  # by step

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


def isotropy_table(found: Mapping[str, Isotropy]) -> Table:
    """Return a row a model, with each step of the bound and whether it holds."""
    rows = tuple(
        (
            name,
            each.sentences,
            each.log_mean_exp,
            each.mean / each.temperature,
            _said(each.is_jensen),
            each.sentences * each.mean,
            each.largest_eigenvalue,
            _said(each.is_above_mean),
            each.total,
            _said(each.is_below_sum) + ("" if each.negative_share == 0 else " (need not)"),
            100 * each.negative_share,
        )
        for name, each in found.items()
    )
    return Table("The bound on the largest eigenvalue", _COLUMNS, rows)


def falling_table(runs: Mapping[str, Looks]) -> Table:
    """Return a row a training: whether the largest eigenvalue falls along it."""
    columns = (
        Column("Training"),
        Column("Looks"),
        Column("Log-mean-exp at first", 4),
        Column("Log-mean-exp at last", 4),
        Column("Largest eigenvalue at first", 2),
        Column("Largest eigenvalue at last", 2),
        Column("Looks at which it fell"),
        Column("It falls"),
    )
    rows = []
    for name, looks in runs.items():
        first, *_, last = looks.values()
        values = [look.largest_eigenvalue for look in looks.values()]
        rows.append(
            (
                name,
                len(looks),
                first.log_mean_exp,
                last.log_mean_exp,
                values[0],
                values[-1],
                f"{falls(values)} of {len(values) - 1}",
                _said(values[-1] < values[0]),
            )
        )
    return Table("Along training", columns, tuple(rows))


def isotropy_report(tables: Sequence[Table], runs: Mapping[str, Looks]) -> str:
    """Return the self-contained page: tables, and the steps of the bound along each training."""
    figures = [figure for name, looks in runs.items() for figure in _figures(name, looks)]
    blocks = [MEANING, *(html.section(table.title, html.table(table)) for table in tables)]
    if figures:
        blocks.append(html.section("Curves", html.gallery(*figures)))
    return html.page("Isotropy", *blocks)


def _figures(name: str, looks: Looks) -> list[html.Html]:
    steps, found = list(looks), list(looks.values())
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
    figures = []
    for title, lines in pairs.items():
        drawn = [Curve(label, steps, values) for label, values in lines.items()]
        ends = [
            f"{line.label} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in drawn
        ]
        png = curves(drawn, title=f"{title}: {name}")
        figures.append(html.figure(png, f"By step of {name}: {', '.join(ends)}"))
    return figures


def _said(holds: bool) -> str:
    return "yes" if holds else "no"

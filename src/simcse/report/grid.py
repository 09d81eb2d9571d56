"""The page of a grid: each row beside the published one, and whether their order holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from simcse.report.plots import RowPoints, row_points
from simcse.report.ranks import LEAST_SEEDS, LEVEL, Agreement, agreement
from simcse.report.sections import Picture, Section
from simcse.report.seeds import compare_seeds, mean_interval, spread
from simcse.report.tables import Column, Spread, Table

MEASURE = "score"
SCORE = Column("Ours", best="highest")


@dataclass(frozen=True)
class RowScores:
    """One row's scores by one measure.

    Attributes:
        name: of the row.
        group: the rows it is compared with.
        scores: by seed; of what is not trained the same for all.
        published: theirs, where there is one.
        baseline: whether the others of its group are compared with it.
        trained: whether seeds make a difference.
    """

    name: str
    scores: Mapping[int, float]
    published: float | None = None
    group: str = ""
    baseline: bool = False
    trained: bool = True

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return sum(self.scores.values()) / len(self.scores)

    @property
    def shown(self) -> Spread | float:
        """The mean, with its spread where there is one."""
        return (spread(list(self.scores.values())) if self.trained else None) or self.mean


@dataclass(frozen=True)
class RowOutcome:
    """A row against its baseline on the seeds both have.

    Attributes:
        row: the row.
        difference: to the baseline's mean; ``None`` without a baseline.
        low: lower end of Student's 95 % interval of the paired difference.
        high: its upper end.
        p: two-sided and exact, by flipping signs of the paired differences.
        published: the difference that was published.
    """

    row: RowScores
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    published: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All rows of one group by one measure.

    Attributes:
        title: the measure, and the group where there are several.
        rows: those that have a score.
        seeds: runs a row, the fewest.
        agreement: of our order and theirs; ``None`` where nothing was published.
        place: the backbone and the scale, in words.
        column: how the measure is shown: its decimals, and which end is best.
    """

    title: str
    rows: Sequence[RowOutcome]
    seeds: int
    agreement: Agreement | None
    place: str
    column: Column

    @property
    def verdict(self) -> str:
        """Say in a sentence or two whether their order of rows is ours."""
        return _verdict(self)

    @property
    def summary(self) -> str:
        """Say both, `verdict` and `directions`."""
        return f"{self.verdict} {self.directions}".rstrip()

    @property
    def directions(self) -> str:
        """Say how many rows differ from the baseline, and if the way that was published."""
        both = [
            (each, each.difference * each.published > 0)
            for each in self.rows
            if each.difference is not None and each.published
        ]
        if not both:
            known = [each for each in self.rows if each.low is not None]
            differ = sum(map(_without_zero, known))
            said = f"Of {len(known)} rows {differ} differ from the baseline by a 95 % interval"
            return f"{said} without 0." if known else ""
        same = [each for each, agrees in both if agrees]
        said = (
            f"{len(same)} of {len(both)} rows differ from the baseline in the published direction"
        )
        if all(each.low is None for each, _ in both):
            return f"{said}."
        sure = sum(1 for each in same if _without_zero(each))
        other = sum(1 for each, agrees in both if not agrees and _without_zero(each))
        without = f"{sure} of them with a 95 % interval without 0; {other} the other way with one"
        return f"{said}, {without}."


@dataclass(frozen=True)
class GridReport:
    """What the page of a grid says.

    Attributes:
        title: of the page.
        source: where it was published.
        claim: what was said there.
        note: of how it is rerun.
        comparisons: by measure and group.
        left_out: rows that were not run, and why.
        more: further sections, such as the grid's own figure.
        scale: what it was run on, in words by name.
    """

    title: str
    source: str
    claim: str
    note: str
    comparisons: Sequence[Comparison]
    left_out: Mapping[str, str] = field(default_factory=dict)
    more: Sequence[Section] = ()
    scale: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> list[Section]:
        """Return everything below the title, the verdict first."""
        first = [f"Source: {self.source}."] if self.source else []
        first += [f"The claim: {self.claim}"] if self.claim else []
        first += [self.note] if self.note else []
        verdicts = [f"{each.title}: {each.summary}" for each in self.comparisons]
        found = [Section("", first), Section("Verdict", verdicts)]
        found += [_section(each) for each in self.comparisons]
        if self.left_out:
            rows = tuple(self.left_out.items())
            table = Table("Rows without a run", (Column("Row"), Column("Why, and how")), rows)
            found.append(Section("Not run", [table]))
        found += self.more
        scale = Table("Scale", (Column("What"), Column("Value")), tuple(self.scale.items()))
        return [*found, Section("How it was run", [scale])]


def compare_rows(
    title: str, rows: Sequence[RowScores], *, place: str, column: Column = SCORE
) -> Comparison:
    """Put rows beside their baseline and their published scores."""
    baseline = next((row for row in rows if row.baseline), None)
    both = [row for row in rows if row.published is not None]
    found = agreement(
        [list(row.scores.values()) for row in both],
        [row.published for row in both if row.published is not None],
    )
    seeds = min((len(row.scores) for row in rows if row.trained), default=0)
    outcomes = [_outcome(row, baseline) for row in rows]
    return Comparison(title, outcomes, seeds, found, place, column)


def comparison_table(found: Comparison) -> Table:
    """Return one row a row: our score, theirs, and both differences to the baseline.

    What nobody published or compared has no column.
    """
    ours = found.column
    least = f" (≥ {2 / 2**found.seeds:.3g})" if found.seeds >= LEAST_SEEDS else ""
    columns = (
        Column("Row"),
        ours,
        replace(ours, title="Published"),
        *(
            Column(heading, ours.decimals)
            for heading in ("Our difference", "95 % from", "to", "Published difference")
        ),
        Column(f"p{least}", decimals=3),
    )
    rows = tuple(
        (
            f"{each.row.name}{' (baseline)' if each.row.baseline else ''}",
            each.row.shown,
            each.row.published,
            each.difference,
            each.low,
            each.high,
            each.published,
            each.p if found.seeds >= LEAST_SEEDS else None,
        )
        for each in found.rows
    )
    title = f"{found.title}, mean ± standard deviation over seeds"
    return Table(title, columns, rows).without_empty()


def seeds_table(found: Comparison) -> Table:
    """Return every row's score of every seed."""
    seeds = sorted({seed for each in found.rows for seed in each.row.scores})
    decimals = found.column.decimals
    columns = (Column("Row"), *(Column(f"Seed {seed}", decimals) for seed in seeds))
    rows = tuple(
        (each.row.name, *(each.row.scores.get(seed) for seed in seeds)) for each in found.rows
    )
    return Table(f"{found.title}, each seed", columns, rows)


def _section(found: Comparison) -> Section:
    blocks: list[str | Table | Picture] = [comparison_table(found)]
    if any(each.low is not None for each in found.rows):
        blocks.append(EXPLAINED)
    blocks += [_picture(found), seeds_table(found)]
    return Section(found.title, blocks)


EXPLAINED = (
    "A difference is to the baseline on the same seeds, with Student's 95 % interval. p is that of "
    "the difference, exact, over all ways of flipping the signs of the seeds' differences; of few "
    "seeds it cannot be small. Rows are looked at one by one: of twenty without any effect one has "
    "an interval without 0."
)


def _picture(found: Comparison) -> Picture:
    relative = any(each.row.baseline for each in found.rows)
    base = next((each.row for each in found.rows if each.row.baseline), None)
    points = []
    for each in found.rows:
        ours = [s - base.mean if base else s for s in each.row.scores.values()]
        theirs = each.published if relative else each.row.published
        points.append(RowPoints(each.row.name, ours, theirs))
    label = f"{found.title}, difference to the baseline" if relative else found.title
    published = any(point.theirs is not None for point in points)
    shown = "our seeds and mean by row" + ", and what was published" * published
    alt = f"{label}: {shown}, as in the table"
    return Picture(row_points(points, title=label), alt)


def _outcome(row: RowScores, baseline: RowScores | None) -> RowOutcome:
    if baseline is None or baseline is row:
        return RowOutcome(row)
    theirs = (
        None
        if row.published is None or baseline.published is None
        else row.published - baseline.published
    )
    common = sorted(row.scores.keys() & baseline.scores.keys())
    low = high = p = None
    if len(common) > 1:
        sides = [
            {seed: {"best": {MEASURE: each.scores[seed]}} for seed in common}
            for each in (baseline, row)
        ]
        p = compare_seeds(*sides)[0].sign_flip_p
        low, high = mean_interval([row.scores[s] - baseline.scores[s] for s in common])
    return RowOutcome(row, row.mean - baseline.mean, low, high, p, theirs)


def _without_zero(row: RowOutcome) -> bool:
    return row.low is not None and row.high is not None and row.low * row.high > 0


def _verdict(found: Comparison) -> str:
    told = found.agreement
    if told is None and any(each.row.published is not None for each in found.rows):
        return "no order to compare yet: fewer than two rows that differ; ours alone is below."
    if told is None:
        return "nothing was published to compare the order of rows with."
    tau = f"Kendall's tau {told.tau:.2f} over {told.rows} rows"
    if told.p is None:
        return f"not enough seeds for a verdict ({found.seeds} of {LEAST_SEEDS}); {tau}."
    shown = f"{tau}, p = {told.p:.2g}{_seed_by_seed(told)}"
    if told.tau <= 0:
        return f"the order does not hold {found.place} ({shown})."
    if told.p < LEVEL:
        return f"the order holds {found.place} ({shown})."
    least = ""
    if told.least_p >= LEVEL:
        least = f" Of {told.rows} rows even the same order has p = {told.least_p:.2g}."
    return f"the order is not confirmed {found.place}: it agrees, but so may luck ({shown}).{least}"


def _seed_by_seed(told: Agreement) -> str:
    if not told.by_seed:
        return ""
    return f"; seed by seed tau is {min(told.by_seed):.2f} to {max(told.by_seed):.2f}"

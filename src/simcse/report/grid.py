"""The report of a grid of experiments: each row beside the published one, and the rankings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from simcse.evaluate.significance import MIN_SEEDS, RankAgreement, rank_agreement, sign_flip_p
from simcse.report.plots import RowPoints, row_points
from simcse.report.sections import Block, Picture, Section
from simcse.report.seeds import mean_interval, spread
from simcse.report.tables import Column, Spread, Table

SCORE = Column("Ours", best="highest")
LEVEL = 0.05  # of significance
EXPLAINED = (
    "A difference is to the baseline on the same seeds, with Student's 95 % interval. p is the "
    "exact p-value of the difference over all ways of flipping the signs of the seeds' "
    "differences; with few seeds it cannot be small. Rows are tested one by one: of twenty rows "
    "without any effect, one is expected to have an interval that excludes 0."
)


@dataclass(frozen=True)
class RowScores:
    """One row's scores by one metric."""

    name: str  # name of the row
    scores: Mapping[int, float]  # by seed; the same for all seeds where nothing is trained
    published: float | None = None  # the published score, where there is one
    group: str = ""  # the rows it is compared with
    baseline: bool = False  # whether the other rows of its group are compared with it
    trained: bool = True  # whether the score depends on the seed

    @property
    def mean(self) -> float:
        """Mean over seeds."""
        return sum(self.scores.values()) / len(self.scores)

    @property
    def shown(self) -> Spread | float:
        """The mean, with its standard deviation where there is one."""
        return (spread(list(self.scores.values())) if self.trained else None) or self.mean


@dataclass(frozen=True)
class RowOutcome:
    """A row compared with its baseline on the seeds both have."""

    row: RowScores  # the row
    difference: float | None = None  # to the baseline's mean; ``None`` without a baseline
    low: float | None = None  # lower end of Student's 95 % interval of the paired difference
    high: float | None = None  # its upper end
    p: float | None = None  # two-sided and exact, by flipping signs of the paired differences
    published: float | None = None  # the published difference

    @property
    def is_significant(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return self.low is not None and self.high is not None and self.low * self.high > 0


@dataclass(frozen=True)
class GridComparison:
    """All rows of one group by one metric."""

    title: str  # the metric, and the group where there are several
    rows: Sequence[RowOutcome]  # those that have a score
    seeds: int  # smallest number of runs of a row
    # of our ranking and the published one; ``None`` without published scores
    agreement: RankAgreement | None
    setting: str  # the backbone and the data, such as "on mini with 100 rows"
    column: Column  # how the metric is shown: its decimals, and which end is best

    @property
    def summary(self) -> str:
        """Both sentences, `verdict` and `directions`."""
        return f"{self.verdict} {self.directions}".rstrip()

    @property
    def verdict(self) -> str:
        """A sentence or two on whether our ranking of rows agrees with the published one."""
        found = self.agreement
        if found is None and any(each.row.published is not None for each in self.rows):
            return "There is no ranking to compare: it needs two rows with different scores."
        if found is None:
            return "There is no published ranking to compare with."
        tau = f"Kendall tau {found.tau:.2f} over {found.rows} rows"
        if found.p is None:
            return f"There are not enough seeds for a p-value ({self.seeds} of {MIN_SEEDS}): {tau}."
        seeds = found.by_seed
        by_seed = f"; tau of single seeds {min(seeds):.2f} to {max(seeds):.2f}" if seeds else ""
        numbers = f"({tau}, p = {found.p:.2g}{by_seed})"
        if found.tau <= 0:
            return f"The ranking does not agree with the published one {self.setting} {numbers}."
        if found.p < LEVEL:
            return f"The ranking agrees with the published one {self.setting} {numbers}."
        limit = (
            f" With {found.rows} rows, even an identical ranking has p = {found.least_p:.2g}."
            if found.least_p >= LEVEL
            else ""
        )
        return (
            f"The ranking correlates with the published one {self.setting}, but not significantly "
            f"{numbers}.{limit}"
        )

    @property
    def directions(self) -> str:
        """A sentence on how many rows differ from the baseline, and in which direction."""
        published = [each for each in self.rows if each.difference is not None and each.published]
        known = [each for each in self.rows if each.low is not None]
        if not published:
            significant = sum(each.is_significant for each in known)
            count = f"{significant} of {len(known)} rows differ from the baseline"
            return f"{count} with a 95 % interval that excludes 0." if known else ""
        same = [each for each in published if each.difference * each.published > 0]  # type: ignore[operator]
        count = (
            f"{len(same)} of {len(published)} rows differ from the baseline in the published "
            "direction"
        )
        if all(each.low is None for each in published):
            return f"{count}."
        significant = sum(each.is_significant for each in same)
        opposite = sum(each.is_significant for each in published if each not in same)
        return (
            f"{count}, {significant} of them with a 95 % interval that excludes 0; {opposite} "
            "differ significantly in the opposite direction."
        )

    def table(self) -> Table:
        """Return one line a row: our score, the published one, and both differences.

        A column without any value is left out.
        """
        ours, enough = self.column, self.seeds >= MIN_SEEDS
        differences = ("Our difference", "95 % from", "to", "Published difference")
        columns = (
            Column("Row"),
            ours,
            replace(ours, title="Published"),
            *(Column(heading, ours.decimals) for heading in differences),
            Column(f"p (≥ {2 / 2**self.seeds:.3g})" if enough else "p", decimals=3),
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
                each.p if enough else None,
            )
            for each in self.rows
        )
        title = f"{self.title}, mean ± standard deviation over seeds"
        return Table(title, columns, rows).without_empty()

    def seed_table(self) -> Table:
        """Return every row's score of every seed."""
        seeds = sorted({seed for each in self.rows for seed in each.row.scores})
        decimals = self.column.decimals
        columns = (Column("Row"), *(Column(f"Seed {seed}", decimals) for seed in seeds))
        rows = tuple(
            (each.row.name, *(each.row.scores.get(seed) for seed in seeds)) for each in self.rows
        )
        return Table(f"{self.title}, each seed", columns, rows)

    def section(self) -> Section:
        """Return the tables and the figure under the title."""
        blocks: list[Block] = [self.table()]
        if any(each.low is not None for each in self.rows):
            blocks.append(EXPLAINED)
        return Section(self.title, [*blocks, self._picture(), self.seed_table()])

    def _picture(self) -> Picture:
        base = next((each.row for each in self.rows if each.row.baseline), None)
        points = [
            RowPoints(
                each.row.name,
                [score - base.mean if base else score for score in each.row.scores.values()],
                each.published if base else each.row.published,
            )
            for each in self.rows
        ]
        label = f"{self.title}, difference to the baseline" if base else self.title
        published = any(point.theirs is not None for point in points)
        shown = "our seeds and mean by row" + ", and the published scores" * published
        return Picture(row_points(points, title=label), f"{label}: {shown}, as in the table")


@dataclass(frozen=True)
class GridReport:
    """The content of the page of a grid."""

    title: str  # title of the page
    source: str  # where the results were published
    claim: str  # the claim made there
    note: str  # how it is rerun
    comparisons: Sequence[GridComparison]  # by metric and group
    left_out: Mapping[str, str] = field(default_factory=dict)  # rows that were not run, and why
    more: Sequence[Section] = ()  # further sections, such as the grid's own figure
    # the size of the rerun, in words by name
    scale: Mapping[str, str] = field(default_factory=dict)

    def sections(self) -> list[Section]:
        """Return everything below the title, the verdict first."""
        first = [f"Source: {self.source}."] if self.source else []
        first += [f"The claim: {self.claim}"] if self.claim else []
        first += [self.note] if self.note else []
        verdicts = [f"{each.title}: {each.summary}" for each in self.comparisons]
        found = [Section("", first), Section("Verdict", verdicts)]
        found += [each.section() for each in self.comparisons]
        if self.left_out:
            rows = tuple(self.left_out.items())
            table = Table("Rows without a run", (Column("Row"), Column("Reason")), rows)
            found.append(Section("Not run", [table]))
        scale = Table("Scale", (Column("Setting"), Column("Value")), tuple(self.scale.items()))
        return [*found, *self.more, Section("How it was run", [scale])]


def compare_rows(
    title: str, rows: Sequence[RowScores], *, setting: str, column: Column = SCORE
) -> GridComparison:
    """Compare rows with their baseline and with their published scores."""
    baseline = next((row for row in rows if row.baseline), None)
    both = [(row, row.published) for row in rows if row.published is not None]
    agreement = rank_agreement(
        [list(row.scores.values()) for row, _ in both], [published for _, published in both]
    )
    seeds = min((len(row.scores) for row in rows if row.trained), default=0)
    outcomes = [_compare_with(baseline, row) for row in rows]
    return GridComparison(title, outcomes, seeds, agreement, setting, column)


def _compare_with(baseline: RowScores | None, row: RowScores) -> RowOutcome:
    if baseline is None or baseline is row:
        return RowOutcome(row)
    published = (
        None
        if row.published is None or baseline.published is None
        else row.published - baseline.published
    )
    common = sorted(row.scores.keys() & baseline.scores.keys())
    gain = [row.scores[seed] - baseline.scores[seed] for seed in common]
    p = sign_flip_p(np.array(gain)) if len(common) > 1 else None
    return RowOutcome(row, row.mean - baseline.mean, *mean_interval(gain), p, published)

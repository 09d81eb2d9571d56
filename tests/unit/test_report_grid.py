"""The page of a grid: verdicts, differences, what is shown and what is not."""

import numpy as np
import pytest
from scipy import stats

from simcse.report.grid import (
    GridReport,
    RowScores,
    compare_rows,
)
from simcse.report.sections import to_html, to_text
from simcse.report.tables import Column, to_markdown

SETTING = "on mini with 100 rows"


def rows(*scores, published=(82.5, 80.0, 75.0, 70.0, 60.0)):
    """Rows ``r0``, ``r1``, ... of these scores by seed; the first is the baseline."""
    return [
        RowScores(f"r{i}", dict(enumerate(seeds)), theirs, baseline=i == 0)
        for i, (seeds, theirs) in enumerate(zip(scores, published, strict=False))
    ]


AGREEING = [[x, x + 1.0, x + 2.0] for x in (50.0, 47.5, 43.5, 39.5, 29.5)]


def test_the_same_order_with_three_seeds_holds():
    found = compare_rows("STS-B dev", rows(*AGREEING), setting=SETTING)
    assert found.verdict == (
        "The ranking agrees with the published one on mini with 100 rows (Kendall tau 1.00 over 5 "
        "rows, p = 0.0083; tau of single seeds 1.00 to 1.00)."
    )


def test_two_seeds_are_not_enough_and_show_no_p():
    found = compare_rows("STS-B dev", rows(*[s[:2] for s in AGREEING]), setting=SETTING)
    assert found.verdict.startswith(
        "There are not enough seeds for a p-value (2 of 3): Kendall tau 1.00"
    )
    assert "p =" not in found.verdict
    assert found.table().columns[-1].title == "Published difference"


def test_the_other_order_does_not_hold():
    found = compare_rows("STS-B dev", rows(*AGREEING[::-1]), setting=SETTING)
    assert found.verdict.startswith(
        "The ranking does not agree with the published one on mini with 100 rows (Kendall tau -1"
    )


def test_an_agreement_without_significance_is_not_called_one():
    nearly = [AGREEING[i] for i in (1, 0, 2, 3, 4)]  # p is 5 / 120
    assert compare_rows("x", rows(*nearly), setting=SETTING).verdict.startswith(
        "The ranking agrees"
    )
    luck = [AGREEING[i] for i in (1, 0, 3, 2, 4)]
    found = compare_rows("x", rows(*luck), setting=SETTING)
    assert found.verdict.startswith(
        "The ranking correlates with the published one on mini with 100 rows, but not significantly"
    )
    three = compare_rows("x", rows(*AGREEING[:3]), setting=SETTING)
    assert three.verdict.startswith("The ranking correlates")
    assert "With 3 rows, even an identical ranking has p = 0.17." in three.verdict


def test_without_published_scores_nothing_is_judged():
    found = compare_rows("x", rows(*AGREEING, published=[None] * 5), setting=SETTING)
    assert found.agreement is None
    assert found.verdict.startswith("There is no published ranking")


def test_what_nobody_published_has_no_column_and_the_lowest_may_be_best():
    distances = [[0.3, 0.31, 0.29], [0.4004, 0.4005, 0.4006]]
    found = compare_rows(
        "alignment",
        rows(*distances, published=[None] * 2),
        setting=SETTING,
        column=Column("Ours", 3, "lowest"),
    )
    titles = [column.title for column in found.table().columns]
    assert titles == ["Row", "Ours", "Our difference", "95 % from", "to", "p (≥ 0.25)"]
    text = to_markdown(found.table())
    assert "**0.300 ± 0.010**" in text
    assert " 0.401 ± 0.000 " in text
    assert "0.401" in to_markdown(found.seed_table())


def test_one_row_has_no_order():
    found = compare_rows("x", rows(*AGREEING[:1]), setting=SETTING)
    assert found.agreement is None
    assert found.verdict.startswith("There is no ranking to compare")


def test_differences_are_paired_by_seed():
    ours = [[50.0, 52.0, 51.0, 49.0], [49.0, 51.5, 50.5, 47.0]]
    found = compare_rows("x", rows(*ours), setting=SETTING).rows[1]
    differences = np.subtract(ours[1], ours[0])
    expected = stats.t.interval(0.95, 3, loc=differences.mean(), scale=stats.sem(differences))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.difference == pytest.approx(-1.0)
    assert found.published == pytest.approx(-2.5)
    assert found.p == 2 / 2**4  # all four of one sign


def test_directions_are_counted_beside_the_verdict():
    ours = [[50.0, 51.0, 52.0], [48.0, 49.1, 50.2], [45.0, 60.0, 44.0], [52.0, 53.1, 54.2]]
    found = compare_rows("x", rows(*ours), setting=SETTING)
    assert found.directions == (
        "2 of 3 rows differ from the baseline in the published direction, 1 of them with a 95 % "
        "interval that excludes 0; 1 differ significantly in the opposite direction."
    )
    alone = compare_rows("x", rows(*ours, published=[None] * 4), setting=SETTING)
    assert alone.directions == (
        "2 of 3 rows differ from the baseline with a 95 % interval that excludes 0."
    )
    one = [scores[:1] for scores in ours]  # no spread, no interval
    assert compare_rows("x", rows(*one), setting=SETTING).directions == (
        "2 of 3 rows differ from the baseline in the published direction."
    )
    assert compare_rows("x", rows(*one, published=[None] * 4), setting=SETTING).directions == ""


def test_seeds_that_only_one_side_has_are_no_pair():
    first, second = rows([50.0, 52.0, 51.0], [49.0, 50.0, 40.0])
    second = RowScores("r1", {1: 49.0, 2: 50.0, 7: 40.0}, 80.0)
    found = compare_rows("x", [first, second], setting=SETTING).rows[1]
    expected = stats.t.interval(0.95, 1, loc=-2.0, scale=stats.sem([-3.0, -1.0]))
    assert (found.low, found.high) == pytest.approx(expected)


def test_what_is_not_trained_has_no_spread():
    untrained = RowScores("start", dict.fromkeys(range(3), 33.0), 60.0, trained=False)
    found = compare_rows("x", [*rows(*AGREEING[:2]), untrained], setting=SETTING)
    assert found.table().rows[2][1] == 33.0
    assert found.seed_table().rows[2] == ("start", 33.0, 33.0, 33.0)
    assert found.seeds == 3


def test_the_page_says_everything_in_html_and_in_markdown():
    found = compare_rows("STS-B dev", rows(*AGREEING), setting=SETTING)
    report = GridReport(
        "Table 9: <b>",
        "somewhere",
        "it is *so*",
        "",
        [found],
        {"r6": "no WordNet: apt install wordnet-base"},
        scale={"Command": "simcse paper run 9"},
    )
    page = to_html(report.title, report.sections())
    assert "Table 9: &lt;b&gt;" in page
    assert page.count("<img") == 1
    text, pictures = to_text(report.title, report.sections(), slug="nine")
    assert list(pictures) == ["nine-1.png"]
    assert pictures["nine-1.png"].startswith(b"\x89PNG")
    for said in (
        "# Table 9: \\<b\\>",
        "The claim: it is \\*so\\*",
        "STS-B dev: The ranking agrees",
        "| r0 (baseline) | **51.00 ± 1.00** |",
        "](nine-1.png)",
        "| r6  | no WordNet: apt install wordnet-base |",
        "| Command | simcse paper run 9 |",
    ):
        assert said in text, said

"""Tables: what is shown, what is bold, and that user text cannot become markup."""

import io
import json

import pytest
from rich.console import Console

from simcse.errors import NumericError
from simcse.report.tables import Column, Spread, Table, to_json, to_latex, to_markdown, to_rich

HOSTILE = r"50% of_{a}&b #1 \x~y^z $m$ <b>|*c*`[d]"


@pytest.fixture
def table():
    columns = (Column("Model"), Column("STS-B", best="highest"), Column("Loss", 1, best="lowest"))
    rows = (
        ("base", 69.704, 0.26),
        ("sim|cse", Spread(76.25, 0.118), 0.31),
        ("collapsed", None, None),
    )
    return Table("Scores", columns, rows)


def test_values_are_shown_with_their_decimals(table):
    assert table.texts() == [
        ["base", "69.70", "0.3"],
        ["sim|cse", "76.25 ± 0.12", "0.3"],
        ["collapsed", "–", "–"],
    ]
    assert [table.is_numeric(column) for column in range(3)] == [False, True, True]


def test_best_is_judged_as_shown_and_never_missing(table):
    assert [table.is_best(row, 1) for row in range(3)] == [False, True, False]
    assert [table.is_best(row, 2) for row in range(3)] == [True, True, False]  # both show 0.3
    assert not any(table.is_best(row, 0) for row in range(3))


def test_one_number_alone_is_not_best():
    alone = Table("t", (Column("x", best="highest"),), ((1.0,), (None,)))
    assert not alone.is_best(0, 0)
    assert not alone.is_best(1, 0)


def test_a_rounded_zero_has_no_sign_and_integers_no_decimals():
    table = Table("t", (Column("x"), Column("n")), ((-0.001, 1379),))
    assert table.texts() == [["0.00", "1379"]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Spread(1.0, float("nan"))])
def test_numbers_that_are_not_finite_are_refused(value):
    with pytest.raises(NumericError):
        Table("t", (Column("x"),), ((value,),))


def test_rows_must_be_as_wide_as_the_columns():
    with pytest.raises(ValueError, match="expected 2 values, got 1"):
        Table("t", (Column("x"), Column("y")), ((1,),))


def test_markdown_is_aligned_bold_and_escaped(table):
    assert to_markdown(table) == (
        "| Model     |            STS-B |    Loss |\n"
        "| --------- | ---------------: | ------: |\n"
        "| base      |            69.70 | **0.3** |\n"
        "| sim\\|cse  | **76.25 ± 0.12** | **0.3** |\n"
        "| collapsed |                – |       – |\n"
    )


def test_markdown_of_hostile_text_stays_one_cell():
    line = to_markdown(Table("t", (Column("x"),), ((HOSTILE + "\nnext",),))).splitlines()[2]
    assert line == r"| 50% of\_{a}&b #1 \\x~y^z $m$ \<b\>\|\*c\*\`\[d\] next |"


def test_latex_is_booktabs_bold_and_escaped(table):
    latex = to_latex(table)
    assert "\\begin{tabular}{lrr}\n\\toprule\nModel & STS-B & Loss \\\\\n\\midrule\n" in latex
    assert "sim\\textbar{}cse & \\textbf{76.25 $\\pm$ 0.12} & \\textbf{0.3} \\\\\n" in latex
    assert "collapsed & -- & -- \\\\\n\\bottomrule\n" in latex


def test_latex_of_hostile_text_has_no_live_character():
    latex = to_latex(Table(HOSTILE, (Column("x"),), ((HOSTILE,), (-1.5,))))
    escaped = (
        r"50\% of\_\{a\}\&b \#1 \textbackslash{}x\textasciitilde{}y\textasciicircum{}z"
        r" \$m\$ \textless{}b\textgreater{}\textbar{}*c*`{[}d{]}"
    )
    assert f"\\caption{{{escaped}}}" in latex
    assert f"\n{escaped} \\\\\n" in latex
    assert "\n$-$1.50 \\\\\n" in latex


def test_json_keeps_every_digit_and_null(table):
    rows = json.loads(to_json(table))
    assert rows[0] == {"Model": "base", "STS-B": 69.704, "Loss": 0.26}
    assert rows[1]["STS-B"] == {"mean": 76.25, "deviation": 0.118}
    assert rows[2]["STS-B"] is None


def test_rich_shows_every_value_and_reads_no_markup():
    table = Table("[red]title", (Column("Model"), Column("x")), (("[bold]m[/bold]", 1.0),))
    console = Console(file=io.StringIO(), width=80)
    console.print(to_rich(table))
    shown = console.file.getvalue()
    assert "[red]title" in shown
    assert "[bold]m[/bold]" in shown
    assert "1.00" in shown


def test_a_column_without_any_value_can_be_left_out():
    columns = (Column("Model"), Column("Theirs"), Column("Ours"))
    table = Table("t", columns, (("a", None, 1.0), ("b", None, None))).without_empty()
    assert [column.title for column in table.columns] == ["Model", "Ours"]
    assert table.rows == (("a", 1.0), ("b", None))

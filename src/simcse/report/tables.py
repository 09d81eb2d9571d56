"""One table, rendered for a terminal, Markdown, LaTeX or JSON."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from simcse.errors import NumericError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

MISSING = "–"
Cell = TypeVar("Cell")


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds and its standard deviation: ``69.70 ± 0.12``."""

    mean: float
    deviation: float


Value = str | int | float | Spread | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column's title and the format of its values."""

    title: str  # the heading
    decimals: int = 2  # digits after the point of a float or a spread
    # which extreme is set in bold; ``None`` for neither
    best: Literal["highest", "lowest"] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values under titled columns; ``None`` is a missing value, shown as a dash.

    Raises:
        ValueError: a row is not as wide as the columns.
        NumericError: a number is not finite; undefined values must be ``None``.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"expected {len(self.columns)} values, got {len(row)}: {row}")
            for value in row:
                numbers = (value.mean, value.deviation) if isinstance(value, Spread) else (value,)
                if any(isinstance(each, float) and not math.isfinite(each) for each in numbers):
                    raise NumericError(f"table {self.title!r} has the value {value}")

    def is_numeric(self, column: int) -> bool:
        """Return whether a column holds only numbers, and is aligned right."""
        return not any(isinstance(row[column], str) for row in self.rows)

    def without_empty(self) -> "Table":
        """Return the table without the columns that have no value in any row."""
        shown = [
            i for i in range(len(self.columns)) if any(row[i] is not None for row in self.rows)
        ]
        columns = tuple(self.columns[i] for i in shown)
        return Table(self.title, columns, tuple(tuple(row[i] for i in shown) for row in self.rows))

    def texts(self) -> list[list[str]]:
        """Return every value as it is printed."""
        return [
            [_text(value, column) for value, column in zip(row, self.columns, strict=True)]
            for row in self.rows
        ]

    def is_best(self, row: int, column: int) -> bool:
        """Return whether a value, as printed, is its column's best among two or more."""
        best, decimals = self.columns[column].best, self.columns[column].decimals
        numbers = [_number(other[column]) for other in self.rows]
        known = [round(number, decimals) for number in numbers if number is not None]
        number = numbers[row]
        if best is None or number is None or len(known) < 2:
            return False
        return round(number, decimals) == (max(known) if best == "highest" else min(known))


def to_rich(table: Table) -> "RichTable":
    """Return the table for a `rich` console."""
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(title=Text(table.title))
    for number, column in enumerate(table.columns):
        rich.add_column(Text(column.title), justify="right" if table.is_numeric(number) else "left")
    for row in _cells(table, lambda text, best: Text(text, style="bold" if best else "")):
        rich.add_row(*row)
    return rich


def to_markdown(table: Table) -> str:
    """Return the table as padded Markdown, the best values in bold."""
    cells = _cells(table, lambda text, best: f"**{text}**" if best else text, markdown_text)
    titles = [markdown_text(column.title) for column in table.columns]
    widths = [max(3, *map(len, column)) for column in zip(titles, *cells, strict=True)]
    right = [table.is_numeric(column) for column in range(len(titles))]

    def line(row: list[str]) -> str:
        padded = (
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(padded)} |\n"

    rule = ["-" * (width - flush) + ":" * flush for width, flush in zip(widths, right, strict=True)]
    return line(titles) + line(rule) + "".join(map(line, cells))


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX ``table`` for the `booktabs` package."""
    cells = _cells(table, lambda text, best: f"\\textbf{{{text}}}" if best else text, _latex)
    alignment = "".join("r" if table.is_numeric(at) else "l" for at in range(len(table.columns)))
    titles = [_latex(column.title) for column in table.columns]
    head, *body = (f"{' & '.join(row)} \\\\\n" for row in [titles, *cells])
    return (
        "\\begin{table}\n\\centering\n"
        f"\\caption{{{_latex(table.title)}}}\n"
        f"\\begin{{tabular}}{{{alignment}}}\n\\toprule\n"
        f"{head}\\midrule\n{''.join(body)}\\bottomrule\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def to_json(table: Table) -> str:
    """Return one JSON object a row, keyed by column title, unrounded; missing is ``null``."""
    return json.dumps(to_rows(table), ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def to_rows(table: Table) -> list[dict[str, Any]]:
    """Return one plain mapping a row, keyed by column title."""
    return [
        {
            column.title: {"mean": value.mean, "deviation": value.deviation}
            if isinstance(value, Spread)
            else value
            for column, value in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]


def _cells(
    table: Table, mark: Callable[[str, bool], Cell], escape: Callable[[str], str] = str
) -> list[list[Cell]]:
    """Render every value by ``mark``, which is given its text and whether it is the best."""
    return [
        [mark(escape(text), table.is_best(row, column)) for column, text in enumerate(texts)]
        for row, texts in enumerate(table.texts())
    ]


def _number(value: Value) -> float | None:
    if isinstance(value, Spread):
        return value.mean
    return value if isinstance(value, int | float) else None


def _text(value: Value, column: Column) -> str:
    if value is None:
        return MISSING
    if isinstance(value, Spread):
        return f"{_text(value.mean, column)} ± {_text(value.deviation, column)}"
    if isinstance(value, float):
        return f"{round(value, column.decimals) + 0.0:.{column.decimals}f}"  # never "-0.00"
    return str(value)


def markdown_text(text: str) -> str:
    """Return text on one line, with Markdown's special characters escaped."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    "[": "{[}",  # else a row's first one would be an argument of the line break before it
    "]": "{]}",
    MISSING: "--",
    "±": "$\\pm$",
}


def _latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return re.sub(r"^-(?=\d)", "$-$", escaped)  # a minus, not a hyphen

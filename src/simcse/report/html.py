"""One self-contained HTML page from sections, tables and figures, by jinja2 templates.

A block is a plain string, which is escaped and becomes a paragraph; a `Table`; or `Html`, markup
that the functions here return. The page needs no script and no network; its policy allows neither.
"""

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from simcse.report.tables import Spread, Table

if TYPE_CHECKING:
    from jinja2 import Environment

Html = Markup


def page(title: str, *blocks: str | Table) -> str:
    """Return a whole HTML document: a title, then its blocks."""
    return _environment().get_template("page.html").render(title=title, items=_markup(blocks))


def section(heading: str, *blocks: str | Table) -> Html:
    """Return blocks under a heading."""
    return _macro("section", heading, _markup(blocks))


def details(summary: str, *blocks: str | Table) -> Html:
    """Return blocks that a click on their summary unfolds."""
    return _macro("details", summary, _markup(blocks))


def code(text: str) -> Html:
    """Return ``text`` as a block of code with its line breaks."""
    return _macro("code", text)


def link(text: str, target: str) -> Html:
    """Return a link as a paragraph."""
    return _macro("link", text, target)


def figure(png: bytes, alt: str, caption: str = "") -> Html:
    """Return an image inside the page; ``alt`` describes it to readers who cannot see it."""
    return _macro("figure", base64.b64encode(png).decode(), alt, caption)


def gallery(*figures: Html) -> Html:
    """Return figures side by side, or one below the other on a phone."""
    return _macro("gallery", figures)


def table(content: Table) -> Html:
    """Return a table, the best values of a column in bold; it scrolls sideways on a phone."""
    columns = [
        {"title": column.title, "is_number": content.is_numeric(at)}
        for at, column in enumerate(content.columns)
    ]
    rows = [
        [_value(content, row, at, text) for at, text in enumerate(texts)]
        for row, texts in enumerate(content.texts())
    ]
    return _macro("table", content.title, columns, rows)


def _markup(blocks: Iterable[str | Table]) -> list[str]:
    return [table(block) if isinstance(block, Table) else block for block in blocks]


def _value(content: Table, row: int, column: int, text: str) -> dict[str, Any]:
    is_spread = isinstance(content.rows[row][column], Spread)
    shown, _, margin = text.partition(" ± ") if is_spread else (text, "", "")
    return {"text": shown, "margin": margin, "is_best": content.is_best(row, column)}


def _macro(name: str, *arguments: object) -> Html:
    macros: Any = _environment().get_template("macros.html").module
    return Html(getattr(macros, name)(*arguments))


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("simcse.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(
        hashlib.sha256(text.encode()).digest()
    ).decode()
    return environment

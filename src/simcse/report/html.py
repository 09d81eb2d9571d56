"""One self-contained HTML page from sections, tables and figures.

A plain string is always text and is escaped; only `Html`, which the functions here return, is
markup. The page needs no script and no network, and its policy allows neither.
"""

import base64
import hashlib
import html
from collections.abc import Iterable

from simcse.report.tables import Spread, Table

STYLE = """
:root{color-scheme:light dark;--page:#fff;--ink:#1d2129;--soft:#5c6470;--line:#dfe3e8;
--tint:#f5f7f9;--mark:#0b5cad}
@media(prefers-color-scheme:dark){:root{--page:#15181d;--ink:#e6e9ee;--soft:#a3abb8;--line:#333a44;
--tint:#1e232a;--mark:#7cb7ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:2rem 1.25rem 4rem;max-width:68rem;background:var(--page);
color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .75rem}
h2{font-size:1.25rem;line-height:1.3;margin:2.5rem 0 .75rem;padding-bottom:.3rem;
border-bottom:1px solid var(--line)}
p{margin:.75rem 0;max-width:44rem}
figure,.table,details,pre{margin:1.25rem 0}
figure{max-width:40rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));
gap:1.25rem;margin:1.25rem 0}
.gallery figure{margin:0}
figure img{display:block;width:100%;height:auto;background:#fff;border:1px solid var(--line);
border-radius:8px}
figcaption,.caption{color:var(--soft);font-size:.875rem}
figcaption{margin-top:.5rem}
.caption{margin:1.25rem 0 0}
.table{overflow-x:auto;margin-top:.25rem}
.table:focus-visible,summary:focus-visible{outline:2px solid var(--mark);outline-offset:2px}
table{border-collapse:collapse;font-size:.9375rem;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{padding-left:.25rem;min-width:7.5rem;position:sticky;left:0;
background:var(--page)}
thead th{color:var(--soft);font-weight:600;vertical-align:bottom;border-bottom-width:2px}
.number{text-align:right}
th.number{min-width:4rem}
td.number{white-space:nowrap}
td strong{color:var(--mark)}
td small{color:var(--soft)}
pre{padding:1rem;overflow-x:auto;background:var(--tint);border-radius:8px;
font:.875rem/1.5 ui-monospace,Menlo,Consolas,monospace}
summary{cursor:pointer;font-weight:600;color:var(--mark)}
"""


class Html(str):
    """Markup that is already escaped; a plain string never is."""

    __slots__ = ()


def page(title: str, *blocks: str) -> str:
    """Return a whole HTML document: a title, then its blocks; plain strings are paragraphs."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    heading = html.escape(title)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{heading}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{heading}</h1>\n{_join(blocks)}</main>\n</body>\n</html>\n"
    )


def section(heading: str, *blocks: str) -> Html:
    """Return a headed section; plain strings among its blocks are paragraphs."""
    return Html(f"<section>\n<h2>{html.escape(heading)}</h2>\n{_join(blocks)}</section>\n")


def details(summary: str, *blocks: str) -> Html:
    """Return blocks folded away behind their summary."""
    return Html(
        f"<details>\n<summary>{html.escape(summary)}</summary>\n{_join(blocks)}</details>\n"
    )


def code(text: str) -> Html:
    """Return ``text`` as a block of code, its lines kept."""
    return Html(f"<pre><code>{html.escape(text)}</code></pre>\n")


def link(text: str, target: str) -> Html:
    """Return a link as a paragraph."""
    return Html(f'<p><a href="{html.escape(target)}">{html.escape(text)}</a></p>\n')


def figure(png: bytes, alt: str, caption: str = "") -> Html:
    """Return an image inside the page; ``alt`` says what it shows to those who cannot see it."""
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">'
    below = f"\n<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return Html(f"<figure>\n{image}{below}\n</figure>\n")


def gallery(*figures: Html) -> Html:
    """Return figures side by side, or one below the other on a phone."""
    return Html(f'<div class="gallery">\n{"".join(figures)}</div>\n')


def table(content: Table) -> Html:
    """Return a table, the best values of a column in bold; it scrolls sideways on a phone."""
    titles = [column.title for column in content.columns]
    head = "".join(_cell("th", content, at, html.escape(title)) for at, title in enumerate(titles))
    body = "".join(
        f"<tr>{''.join(_value(content, row, at, text) for at, text in enumerate(texts))}</tr>\n"
        for row, texts in enumerate(content.texts())
    )
    name = html.escape(content.title)
    return Html(
        f'<p class="caption">{name}</p>\n'  # not a <caption>, which would scroll with the table
        f'<div class="table" role="region" aria-label="{name}" tabindex="0">\n<table>\n'
        f"<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}</tbody>\n</table>\n</div>\n"
    )


def _value(content: Table, row: int, column: int, text: str) -> str:
    value = content.rows[row][column]
    shown, margin = html.escape(text), ""
    if isinstance(value, Spread):
        shown, _, spread = shown.partition(" ± ")
        margin = f" <small>± {spread}</small>"
    best = content.is_best(row, column)
    return _cell("td", content, column, (f"<strong>{shown}</strong>" if best else shown) + margin)


def _cell(tag: str, content: Table, column: int, inner: str) -> str:
    kind = ' class="number"' if content.is_numeric(column) else ""
    return f"<{tag}{kind}>{inner}</{tag}>"


def _join(blocks: Iterable[str]) -> str:
    return "".join(
        block if isinstance(block, Html) else f"<p>{html.escape(block)}</p>\n" for block in blocks
    )

"""A page as sections of text, tables and pictures, written as HTML or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from simcse.report import html
from simcse.report.tables import Table, markdown_text, to_markdown


@dataclass(frozen=True)
class Picture:
    """A figure: its PNG, what it shows to those who cannot see it, and a caption."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Link:
    """A link to another page, by the name of its file without the ending."""

    text: str
    slug: str


Block = str | Table | Picture | Link


@dataclass(frozen=True)
class Section:
    """Blocks under a heading; without one they stand below the page's title."""

    heading: str
    blocks: Sequence[Block]


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Return the self-contained page."""
    parts: list[str] = []
    for section in sections:
        blocks = [_html(block) for block in section.blocks]
        parts += [html.section(section.heading, *blocks)] if section.heading else blocks
    return html.page(title, *parts)


def to_text(title: str, sections: Sequence[Section], *, slug: str) -> tuple[str, dict[str, bytes]]:
    """Return the page as Markdown and the pictures it shows, by file name: ``slug-1.png``, ..."""
    parts, pictures = [f"# {markdown_text(title)}"], dict[str, bytes]()
    for section in sections:
        if section.heading:
            parts.append(f"## {markdown_text(section.heading)}")
        for block in section.blocks:
            if isinstance(block, Picture):
                name = f"{slug}-{len(pictures) + 1}.png"
                pictures[name] = block.png
                parts.append(f"![{markdown_text(block.alt)}]({name})")
                parts += [markdown_text(block.caption)] if block.caption else []
            else:
                parts.append(_markdown(block))
    return "\n\n".join(parts) + "\n", pictures


def _html(block: Block) -> str:
    if isinstance(block, Table):
        return html.table(block)
    if isinstance(block, Picture):
        return html.figure(block.png, block.alt, block.caption)
    if isinstance(block, Link):
        return html.link(block.text, f"{block.slug}.html")
    return block


def _markdown(block: str | Table | Link) -> str:
    if isinstance(block, Link):
        return f"* [{markdown_text(block.text)}]({block.slug}.md)"
    if isinstance(block, Table):
        return f"{markdown_text(block.title)}:\n\n{to_markdown(block).rstrip()}"
    return markdown_text(block)

"""A page as sections of text, tables and pictures, written as HTML or as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from simcse.report import html
from simcse.report.tables import Table, markdown_text, to_markdown


@dataclass(frozen=True)
class Picture:
    """A figure: its PNG, a description for readers who cannot see it, and a caption."""

    png: bytes
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Link:
    """A link to another page, by the name of its file without the suffix."""

    text: str
    slug: str


Block = str | Table | Picture | Link


@dataclass(frozen=True)
class Section:
    """Blocks under a heading, or directly below the title where the heading is empty."""

    heading: str
    blocks: Sequence[Block]


def to_html(title: str, sections: Sequence[Section]) -> str:
    """Return the self-contained page."""
    rendered: list[str | Table] = []
    for section in sections:
        blocks = [_html(block) for block in section.blocks]
        rendered += [html.section(section.heading, *blocks)] if section.heading else blocks
    return html.page(title, *rendered)


def to_text(title: str, sections: Sequence[Section], *, slug: str) -> tuple[str, dict[str, bytes]]:
    """Return the page as Markdown and its pictures by file name: ``slug-1.png``, ..."""
    lines, pictures = [f"# {markdown_text(title)}"], dict[str, bytes]()
    for section in sections:
        if section.heading:
            lines.append(f"## {markdown_text(section.heading)}")
        for block in section.blocks:
            if isinstance(block, Picture):
                name = f"{slug}-{len(pictures) + 1}.png"
                pictures[name] = block.png
                lines.append(f"![{markdown_text(block.alt)}]({name})")
                lines += [markdown_text(block.caption)] if block.caption else []
            else:
                lines.append(_markdown(block))
    return "\n\n".join(lines) + "\n", pictures


def _html(block: Block) -> str | Table:
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

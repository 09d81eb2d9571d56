"""How close two ways to encode are, on sentences that every Python carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simcse.model.export import Agreement


def prose(count: int) -> list[str]:
    """Return the first sentences of Python's language reference."""
    from simcse.quickstart.prose import read_topics, split_document

    found = (text for document in read_topics() for text in split_document(document.text))
    return list(dict.fromkeys(found))[:count]


def told(found: Agreement) -> str:
    """Say an agreement in words, the subject left out."""
    return (
        f"agrees with its original on {found.sentences:,} sentences: "
        f"cosine {found.lowest:.6f} at least, {found.mean:.6f} on average"
    )

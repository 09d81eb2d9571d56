"""What commands about an index share: opening, loading its model, filling, showing hits."""

from __future__ import annotations

import contextlib
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import load_encoder, print_note
from simcse.errors import TruncationWarning

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from simcse.index.protocol import VectorIndex
    from simcse.index.uri import Place
    from simcse.io.fingerprint import ModelFingerprint
    from simcse.model.encoder import SentenceEncoder


def check_files(files: Sequence[str]) -> None:
    """Fail before a model is loaded for files that are not there."""
    from simcse.io.files import open_bytes

    for path in files:
        with open_bytes(Path(path)):
            pass


class PlaceType(click.Path):
    """Where an index is: a folder, or ``postgresql://user@host/database#index``."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click calls it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Return an address as it is, and a folder as a path."""
        from simcse.index.uri import is_address

        return value if is_address(value) else super().convert(value, param, ctx)


PLACE = PlaceType(path_type=Path, file_okay=False)


def open_index(place: Place, *, verify: bool = True) -> VectorIndex:
    """Open an index."""
    from simcse.index import uri as places

    return places.open_index(place, verify=verify)


def load_with_stamp(name: str, **loading: Any) -> tuple[SentenceEncoder, ModelFingerprint]:  # noqa: ANN401
    """Load a model, and say which it is."""
    from simcse.model.fingerprint import model_fingerprint

    encoder = load_encoder(name, **loading)
    return encoder, model_fingerprint(encoder, name)


def load_for(opened: VectorIndex, name: str | None, **loading: Any) -> SentenceEncoder:  # noqa: ANN401
    """Load the model an index was built with, or the one named, if it is the same."""
    encoder, fingerprint = load_with_stamp(name or opened.fingerprint.name, **loading)
    opened.require_model(fingerprint)
    return encoder


def fill(
    opened: VectorIndex, files: Sequence[str], encoder: SentenceEncoder, reading: dict[str, Any]
) -> None:
    """Add the rows of files with a progress bar; say at the end what came in."""
    from simcse.index.ingest import ingest
    from simcse.io.files import ReadCounts

    counts = ReadCounts()
    try:
        with warnings.catch_warnings(), _progress() as observe:
            warnings.simplefilter("ignore", TruncationWarning)  # summed up below
            done = ingest(
                opened,
                files,
                encoder.encode,
                counts=counts,
                note=print_note,
                observe=observe,
                **reading,
            )
    except KeyboardInterrupt:
        click.echo(f"{len(opened):,} rows are in; the same command goes on from there", err=True)
        raise
    click.echo(f"{counts}: {done.added:,} added, {done.updated:,} replaced", err=True)
    say_cut(encoder, encoder.tokenizer.truncated)


def say_cut(encoder: SentenceEncoder, cut: int) -> None:
    """Say at the end how many sentences were over the length limit, if any were."""
    if cut:
        limit = encoder.tokenizer.max_length
        click.echo(f"warning: {cut:,} sentences were cut to {limit} tokens", err=True)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Count rows on stderr; rows done by an earlier call count at once."""
    from simcse.cli.progress import counting_bar

    with counting_bar("indexing", None) as advance:
        yield lambda rows, _skipped: advance(rows)


def show_hits(queries: Sequence[str], found: Sequence[Sequence[Any]], form: str) -> None:
    """Print a table of hits for each query, or all as one JSON list."""
    from simcse.cli.output import show
    from simcse.report.tables import Column, Table

    if form == "json":
        pairs = zip(queries, found, strict=True)
        answer = [{"query": query, "hits": [asdict(hit) for hit in hits]} for query, hits in pairs]
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    columns = (Column("score", decimals=4), Column("id"), Column("text"), Column("metadata"))
    for query, hits in zip(queries, found, strict=True):
        rows = [(hit.score, hit.id, hit.text, _plain(hit.metadata)) for hit in hits]
        show(Table(query, columns, tuple(rows)), form)


def _plain(metadata: Mapping[str, Any]) -> str:
    return json.dumps(metadata, ensure_ascii=False) if metadata else ""

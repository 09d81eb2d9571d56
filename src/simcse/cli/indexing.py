"""Functions that commands about an index share: loading its model, filling it, showing hits."""

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
    from collections.abc import Iterator, Sequence

    from simcse.index.protocol import SearchHit, VectorIndex
    from simcse.io.fingerprint import ModelFingerprint
    from simcse.model.encoder import SentenceEncoder


class IndexUriType(click.Path):
    """A folder, or ``postgresql://user@host/database#index``."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click calls it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401
        """Return an address as it is, and a folder as a path."""
        from simcse.index.uri import is_postgres

        return value if is_postgres(value) else super().convert(value, param, ctx)


INDEX_URI = IndexUriType(path_type=Path, file_okay=False)
index_model_option = click.option(
    "--model", metavar="NAME", help="Model to load; by default the one the index was built with."
)


def check_files(files: Sequence[str]) -> None:
    """Fail before a model is loaded for files that are not there."""
    from simcse.io.files import open_bytes

    for path in files:
        with open_bytes(Path(path)):
            pass


def load_with_fingerprint(name: str, **loading: Any) -> tuple[SentenceEncoder, ModelFingerprint]:  # noqa: ANN401
    """Load a model and return it with its fingerprint."""
    from simcse.model.fingerprint import model_fingerprint

    encoder = load_encoder(name, **loading)
    return encoder, model_fingerprint(encoder, name)


def load_for(opened: VectorIndex, name: str | None, **loading: Any) -> SentenceEncoder:  # noqa: ANN401
    """Load the model an index was built with, or the one named, if it is the same."""
    metadata = opened.metadata
    encoder, fingerprint = load_with_fingerprint(name or metadata.fingerprint.name, **loading)
    metadata.require_model(fingerprint)
    return encoder


def fill_index(
    opened: VectorIndex, files: Sequence[str], encoder: SentenceEncoder, reading: dict[str, Any]
) -> None:
    """Add the rows of files with a progress bar, and print how many there were."""
    from simcse.index.ingest import ingest
    from simcse.io.files import ReadCounts

    counts = ReadCounts()
    try:
        with warnings.catch_warnings(), _progress() as on_batch:
            warnings.simplefilter("ignore", TruncationWarning)  # summed up below
            done = ingest(
                opened,
                files,
                encoder.encode,
                counts=counts,
                note=print_note,
                on_batch=on_batch,
                **reading,
            )
    except KeyboardInterrupt:
        click.echo(
            f"{len(opened):,} rows are stored. Run the same command again to resume.", err=True
        )
        raise
    click.echo(f"{counts}: {done.added:,} added, {done.updated:,} replaced", err=True)
    report_truncation(encoder, encoder.tokenizer.truncated)


def report_truncation(encoder: SentenceEncoder, truncated: int) -> None:
    """Print at the end how many sentences were over the length limit, if any were."""
    if truncated:
        limit = encoder.tokenizer.max_length
        click.echo(f"warning: {truncated:,} sentences were truncated to {limit} tokens", err=True)


@contextlib.contextmanager
def _progress() -> Iterator[Any]:
    """Count rows on stderr; rows done by an earlier call count at once."""
    from simcse.cli.progress import counting_bar

    with counting_bar("indexing", None) as advance:
        yield lambda rows, _skipped: advance(rows)


def show_hits(
    queries: Sequence[str], found: Sequence[Sequence[SearchHit]], output_format: str
) -> None:
    """Print a table of hits for each query, or all as one JSON list."""
    from simcse.cli.output import show
    from simcse.report.tables import Column, Table

    if output_format == "json":
        pairs = zip(queries, found, strict=True)
        answer = [{"query": query, "hits": [asdict(hit) for hit in hits]} for query, hits in pairs]
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    columns = (Column("score", decimals=4), Column("id"), Column("text"), Column("metadata"))
    for query, hits in zip(queries, found, strict=True):
        rows = [
            (
                hit.score,
                hit.id,
                hit.text,
                json.dumps(hit.metadata, ensure_ascii=False) if hit.metadata else "",
            )
            for hit in hits
        ]
        show(Table(query, columns, tuple(rows)), output_format)

"""``simcse encode`` and ``simcse similarity``."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import INDEX_URI, load_with_fingerprint, report_truncation
from simcse.cli.options import (
    dimensions_option,
    load_encoder,
    loading_options,
    model_option,
    precision_option,
)
from simcse.errors import TruncationWarning

if TYPE_CHECKING:
    from simcse.index.uri import IndexUri

CHUNK = 4096  # sentences encoded and written together
ENDINGS = (".npy", ".safetensors", ".parquet")
WRITING = "another process is filling {folder}: {holder}"


@click.command()
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True)
@model_option
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, its ending names the format; or a folder for Parquet parts.",
)
@click.option(
    "--bad-lines",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at a line that is not UTF-8, or skip and count it.",
)
@click.option("--column", default="text", show_default=True, help="Field of .jsonl and .parquet.")
@click.option(
    "--truncation",
    type=click.Choice(["error", "warn", "truncate"]),
    default="warn",
    show_default=True,
    help="What to do with sentences over the length limit.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="To a folder: this process, or a Ray cluster (else as many processes here).",
)
@click.option("--workers", type=click.IntRange(1), help="Of Ray; default: one for each core.")
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    default=50_000,
    show_default=True,
    help="To a folder: rows of a part, which is what a crash may cost.",
)
@click.option(
    "--index", "place", type=INDEX_URI, help="To a folder: then add the parts to this index."
)
@dimensions_option
@precision_option("auto")
@loading_options
def encode(
    sources: tuple[str, ...],
    output: Path,
    model: str,
    bad_lines: str,
    column: str,
    truncation: str,
    **rest: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Encode sentences to .npy, .safetensors or .parquet, or to a folder of parts.

    INPUT is a .txt file with one sentence a line, .jsonl or .parquet (each with a text field),
    also gzipped, or - for standard input. Row i of the output is sentence i; blank lines
    are no sentences. Memory is constant.

    A folder takes any number of inputs. Each part has the columns id, text, metadata and vector;
    manifest.json says which rows make which part. Interrupted or killed, the same command goes on,
    with either engine, behind the parts that are there.

    \b
    Examples:
      simcse encode sentences.txt --output vectors.npy
      cat sentences.txt | simcse encode - --output vectors.parquet --model runs/mine/best
      simcse encode crawl-*.jsonl --output vectors/ --engine ray --index my-index
    """
    sharded = {name: rest.pop(name) for name in ("engine", "workers", "shard_rows", "place")}
    if output.suffix not in ENDINGS:
        if output.suffix and not output.is_dir():
            raise click.UsageError(
                f"vectors are {', '.join(ENDINGS)}, or a folder without an ending, got {output}"
            )
        if rest.pop("dimensions") is not None:
            raise click.UsageError("--dimensions is for a file as --output, not for parts")
        reading = {"text_column": column, "bad_lines": bad_lines}
        _encode_shards(sources, output, model, reading, truncation, **sharded, **rest)
        return
    if len(sources) > 1 or sharded["engine"] != "local" or sharded["place"]:
        raise click.UsageError(
            "several inputs, --engine ray and --index need a folder as --output, such as vectors/"
        )
    _encode_file(sources[0], output, model, column, bad_lines, truncation, **rest)


def _encode_file(
    source: str,
    output: Path,
    model: str,
    column: str,
    bad_lines: str,
    truncation: str,
    dimensions: int | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    from simcse.io.files import ReadCounts
    from simcse.io.sentences import count_lines, read_sentences
    from simcse.io.vectors import vector_writer

    counts = ReadCounts()
    # An unusable file fails here, before the model is loaded.
    sentences = read_sentences(source, column=column, bad_lines=bad_lines, counts=counts)  # type: ignore[arg-type]
    encoder = load_encoder(model, **loading)
    with warnings.catch_warnings(), vector_writer(output) as append:
        warnings.simplefilter("ignore", TruncationWarning)  # summed up below
        for chunk in _chunks(sentences, total=count_lines(source)):
            append(
                chunk,
                encoder.encode(chunk, truncation=truncation, dimensions=dimensions),  # type: ignore[arg-type]
            )
    click.echo(f"{output}: {counts}", err=True)
    if truncation == "warn":
        report_truncation(encoder, encoder.tokenizer.truncated)


def _encode_shards(
    sources: tuple[str, ...],
    folder: Path,
    model: str,
    reading: dict[str, str],
    truncation: str,
    *,
    engine: str,
    workers: int | None,
    shard_rows: int,
    place: IndexUri | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    from simcse.cli.progress import counting_bar
    from simcse.engine.run import Loading, encode_missing
    from simcse.engine.shards import Manifest, load_parts, plan, take_up
    from simcse.index.uri import open_index
    from simcse.io.files import ReadCounts
    from simcse.io.locks import lock_folder

    counts = ReadCounts()
    shards = plan(sources, rows=shard_rows, reading=reading, counts=counts)
    index = None if place is None else open_index(place)
    encoder, fingerprint = load_with_fingerprint(model, **loading)
    if index is not None:
        index.metadata.require_model(fingerprint)
    told = Loading.of(encoder, model, loading)
    manifest = Manifest(fingerprint, told.precision, truncation, reading, shards)
    with lock_folder(folder, busy=WRITING), counting_bar("encoding", manifest.rows) as advance:
        take_up(folder, manifest)
        cut = encode_missing(
            engine,  # type: ignore[arg-type]  # click.Choice allows no other
            *(folder, manifest, told),
            encoder=encoder,
            workers=workers,
            observe=advance,
        )
    click.echo(f"{folder}: {counts}, {len(shards):,} parts", err=True)
    if truncation == "warn":
        report_truncation(encoder, cut)
    if index is not None:
        with counting_bar("indexing", manifest.rows) as advance:
            done = load_parts(index, folder, manifest, advance)
        click.echo(
            f"{index.metadata.name}: {done.added:,} added, {done.updated:,} replaced", err=True
        )


def _chunks(sentences: Iterator[str], *, total: int | None) -> Iterator[list[str]]:
    """Yield lists of sentences, with a bar on stderr; without a total it has no ETA."""
    from simcse.cli.progress import counting_bar

    with counting_bar("encoding", total) as advance:
        while chunk := list(itertools.islice(sentences, CHUNK)):
            yield chunk
            advance(len(chunk))


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@model_option
@precision_option("fp32")
@loading_options
def similarity(first: str, second: str, model: str, **loading: Any) -> None:  # noqa: ANN401
    """Cosine of two sentences.

    \b
    Example:
      simcse similarity "A man plays a guitar." "Someone makes music."
    """
    from simcse.evaluate.vectors import cosine

    for name, text in (("A", first), ("B", second)):
        if not text.strip():
            raise click.UsageError(f"sentence {name} is empty")
    left, right = load_encoder(model, **loading).encode([first, second])
    click.echo(f"{cosine([left], [right])[0]:.4f}")

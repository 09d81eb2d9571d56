"""``simcse encode`` and ``simcse similarity``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import PLACE, load_with_stamp, open_index, say_cut
from simcse.cli.options import (
    bad_lines_option,
    column_option,
    dimensions_option,
    load_encoder,
    loading_options,
    model_option,
    precision_option,
    truncation_option,
)

if TYPE_CHECKING:
    from simcse.bulk import Reading
    from simcse.index.protocol import VectorIndex

ENDINGS = (".npy", ".safetensors", ".parquet")


@click.command("encode")
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@model_option
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="File to write, in the format of its ending; or a folder for Parquet shards.",
)
@bad_lines_option
@column_option
@truncation_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Engine that fills a folder: this process, or a Ray cluster (if there is none, several "
    "processes on this machine).",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Number of Ray workers. Default: one per processor core.",
)
@click.option(
    "--shard-rows",
    type=click.IntRange(1),
    default=50_000,
    help="Number of rows per shard of a folder, which a crash may cost.",
)
@click.option("--index", "uri", type=PLACE, help="Index that receives the shards of a folder.")
@dimensions_option
@precision_option("auto")
@loading_options
def encode_command(
    inputs: tuple[str, ...],
    output: Path,
    bad_lines: str,
    column: str,
    engine: str,
    uri: Any,  # noqa: ANN401 - a folder or an address
    **options: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Encode sentences to .npy, .safetensors or .parquet, or to a folder of Parquet shards.

    INPUT is a .txt file with one sentence per line, a .jsonl or a .parquet file (each with a text
    field), also gzipped, or - for standard input. Row i of the output is sentence i; blank lines
    are skipped. Memory is constant.

    Each shard of a folder has the columns id, text, metadata and vector, and manifest.json lists
    the rows of each shard. If the command is interrupted or killed, repeat it, with either engine:
    it continues after the shards that are done.

    \b
    Examples:
      simcse encode sentences.txt --output vectors.npy
      cat sentences.txt | simcse encode - --output vectors.parquet --model runs/mine/best
      simcse encode crawl-*.jsonl --output vectors/ --engine ray --index my-index
    """
    from simcse.bulk import Reading

    reading = Reading(column, bad_lines)  # type: ignore[arg-type]  # click.Choice allows no other
    if output.suffix in ENDINGS:
        if engine != "local" or uri:
            raise click.UsageError(
                "--engine ray and --index need a folder as --output, such as vectors/"
            )
        _encode_to_file(inputs, output, reading, **options)
        return
    if output.suffix and not output.is_dir():
        raise click.UsageError(
            f"expected --output with the ending {', '.join(ENDINGS)}, or a folder without an "
            f"ending, got {output}"
        )
    _encode_to_folder(inputs, output, reading, engine, uri, **options)


def _encode_to_file(
    inputs: tuple[str, ...],
    output: Path,
    reading: Reading,
    *,
    model: str,
    truncation: Any,  # noqa: ANN401 - click.Choice allows no other
    dimensions: int | None,
    workers: int | None,
    shard_rows: int,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    from simcse.bulk import ModelSpec, encode_to_file
    from simcse.cli.progress import counting_bar
    from simcse.io.files import ReadCounts
    from simcse.io.sentences import count_lines

    counts = ReadCounts()
    texts = reading.texts(inputs, counts)  # before the model is loaded: a file may be unusable
    encoder = load_encoder(model, **loading)
    spec = ModelSpec.of(encoder, model, loading, truncation=truncation, dimensions=dimensions)
    lines = [count_lines(path) for path in inputs]
    total = None if None in lines else sum(filter(None, lines))
    with counting_bar("encoding", total) as advance:
        encode_to_file(texts, output, lambda chunk: spec.encode(encoder, chunk), advance)
    click.echo(f"{output}: {counts}", err=True)
    if truncation == "warn":
        say_cut(encoder, encoder.tokenizer.truncated)


def _encode_to_folder(
    inputs: tuple[str, ...],
    folder: Path,
    reading: Reading,
    engine: Any,  # noqa: ANN401 - click.Choice allows no other
    uri: Any,  # noqa: ANN401
    *,
    model: str,
    truncation: Any,  # noqa: ANN401
    dimensions: int | None,
    workers: int | None,
    shard_rows: int,
    **loading: Any,  # noqa: ANN401
) -> None:
    from simcse.bulk import EncodeJob, ModelSpec, encode_to_folder, index_shards, plan_shards
    from simcse.cli.progress import counting_bar
    from simcse.io.files import ReadCounts

    counts = ReadCounts()
    shards = plan_shards(inputs, rows=shard_rows, reading=reading, counts=counts)
    index: VectorIndex | None = open_index(uri) if uri else None
    encoder, fingerprint = load_with_stamp(model, **loading)
    if index is not None:
        index.require_model(fingerprint)
    spec = ModelSpec.of(encoder, model, loading, truncation=truncation, dimensions=dimensions)
    job = EncodeJob(fingerprint, spec.precision, truncation, dimensions, reading, shards)
    with counting_bar("encoding", job.rows) as advance:
        truncated = encode_to_folder(
            folder, job, spec, encoder, engine=engine, workers=workers, progress=advance
        )
    click.echo(f"{folder}: {counts}, {len(shards):,} shards", err=True)
    if truncation == "warn":
        say_cut(encoder, truncated)
    if index is not None:
        with counting_bar("indexing", job.rows) as advance:
            done = index_shards(index, folder, job, advance)
        click.echo(f"{index.name}: {done.added:,} added, {done.updated:,} replaced", err=True)


@click.command("similarity")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@model_option
@precision_option("fp32")
@loading_options
def similarity_command(
    first: str,
    second: str,
    model: str,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Print the cosine of two sentences.

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

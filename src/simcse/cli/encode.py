"""``simcse encode`` and ``simcse similarity``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import INDEX_URI, report_truncation
from simcse.cli.options import (
    bad_lines_option,
    columns_option,
    count_option,
    dimensions_option,
    load_encoder,
    loading_options,
    model_option,
    precision_option,
    print_note,
    truncation_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simcse.bulk import Engine, Shard
    from simcse.index.protocol import VectorIndex
    from simcse.io.files import BadLines
    from simcse.text import Truncation

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
@columns_option
@truncation_option
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Engine that fills a folder: this process, or a Ray cluster (if there is none, several "
    "processes on this machine).",
)
@count_option("--workers", "Number of Ray workers. Default: one per processor core.")
@count_option(
    "--shard-rows", "Number of rows per shard of a folder, which a crash may cost.", default=50_000
)
@click.option("--index", "uri", type=INDEX_URI, help="Index that receives the shards of a folder.")
@dimensions_option
@precision_option("auto")
@loading_options
def encode_command(
    inputs: tuple[str, ...],
    model: str,
    output: Path,
    bad_lines: BadLines,
    columns: str,
    truncation: Truncation,
    engine: Engine,
    workers: int | None,
    shard_rows: int,
    uri: Any,  # noqa: ANN401 - a folder or an address
    dimensions: int | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
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
    from simcse.bulk import ModelSpec, Reading, encode_to_file, encode_to_folder, plan_shards
    from simcse.cli.progress import counting_bar
    from simcse.index.uri import open_index
    from simcse.io.files import ReadCounts
    from simcse.model.fingerprint import model_fingerprint

    is_file = _check_output(output, needs_folder=engine != "local" or uri is not None)
    counts, reading = ReadCounts(), Reading(columns, bad_lines)
    # Inputs are opened before the model is loaded, because they may be unusable.
    texts = reading.texts(inputs, counts, print_note) if is_file else ()
    shards = () if is_file else plan_shards(inputs, shard_rows, reading, counts, print_note)
    index = None if uri is None else open_index(uri)
    encoder = load_encoder(model, **loading)
    if index is not None:
        index.metadata.require_model(model_fingerprint(encoder, model))
    spec = ModelSpec.of(encoder, model, loading, truncation, dimensions)
    rows = sum(shard.rows for shard in shards)
    with counting_bar("encoding", rows or None) as advance:
        if is_file:
            encode_to_file(texts, output, partial(spec.encode, encoder), advance)
            truncated = encoder.tokenizer.truncated
        else:
            truncated = encode_to_folder(
                *(output, shards, reading, spec, encoder),
                engine=engine,
                workers=workers,
                progress=advance,
            )
    made = "" if is_file else f", {len(shards):,} shards"
    click.echo(f"{output}: {counts}{made}", err=True)
    if truncation == "warn":
        report_truncation(encoder, truncated)
    if index is not None:
        _add_to_index(index, output, shards)


def _check_output(output: Path, *, needs_folder: bool) -> bool:
    """Return whether the output is a file, by its ending."""
    if output.suffix in ENDINGS:
        if needs_folder:
            raise click.UsageError(
                "--engine ray and --index need a folder as --output, such as vectors/"
            )
        return True
    if output.suffix and not output.is_dir():
        raise click.UsageError(
            f"expected --output with the ending {', '.join(ENDINGS)}, or a folder without an "
            f"ending, got {output}"
        )
    return False


def _add_to_index(index: VectorIndex, folder: Path, shards: Sequence[Shard]) -> None:
    from simcse.bulk import index_shards
    from simcse.cli.progress import counting_bar

    with counting_bar("indexing", sum(shard.rows for shard in shards)) as advance:
        done = index_shards(index, folder, shards, advance)
    click.echo(f"{index.metadata.name}: {done.added:,} added, {done.updated:,} replaced", err=True)


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

"""``simcse encode`` and ``simcse similarity``."""

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from simcse.cli.options import (
    load_encoder,
    loading_options,
    model_option,
    output_file,
    precision_option,
)

CHUNK = 4096  # sentences encoded and written together


@click.command()
@click.argument("source", metavar="INPUT")
@model_option
@output_file
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
    type=click.Choice(["error", "warn", "cut"]),
    default="warn",
    show_default=True,
    help="What to do with sentences over the length limit.",
)
@precision_option("auto")
@loading_options
def encode(
    source: str,
    output: Path,
    bad_lines: str,
    column: str,
    truncation: str,
    model: str,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Encode sentences to .npy, .safetensors or .parquet, in constant memory.

    INPUT is a .txt file with one sentence a line, .jsonl or .parquet (each with a text field),
    also gzipped, or - for standard input. Row i of the output is sentence i; blank lines
    are no sentences.

    \b
    Examples:
      simcse encode sentences.txt --output vectors.npy
      cat sentences.txt | simcse encode - --output vectors.parquet --model runs/mine/best
    """
    from simcse.io.files import ReadCounts
    from simcse.io.sentences import count_lines, read_sentences
    from simcse.io.vectors import vector_writer
    from simcse.text import TruncationWarning

    counts = ReadCounts()
    # An unusable file fails here, before the model is loaded.
    sentences = read_sentences(source, column=column, bad_lines=bad_lines, counts=counts)  # type: ignore[arg-type]
    encoder = load_encoder(model, **loading)
    with warnings.catch_warnings(), vector_writer(output) as append:
        warnings.simplefilter("ignore", TruncationWarning)  # summed up below
        for chunk in _chunks(sentences, total=count_lines(source)):
            append(chunk, encoder.encode(chunk, truncation=truncation))  # type: ignore[arg-type]
    click.echo(f"{output}: {counts}", err=True)
    cut = encoder.tokenizer.truncated
    if cut and truncation == "warn":
        limit = encoder.tokenizer.max_length
        click.echo(f"warning: {cut:,} sentences were cut to {limit} tokens", err=True)


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

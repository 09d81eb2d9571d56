"""``simcse sif``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.average import model_output_option
from simcse.cli.options import columns_option, load_encoder, loading_options, read_corpus

if TYPE_CHECKING:
    from simcse.text import Tokenizer


@click.command("sif")
@click.argument("model", metavar="MODEL")
@model_output_option
@click.option("--fit", "corpus", metavar="FILE", help="File of sentences whose tokens are counted.")
@click.option(
    "--smoothing",
    type=float,
    help="Constant a in a / (a + p); smaller values reduce frequent tokens more; default 0.003.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Number of sentences to read from the file."
)
@columns_option
@click.option("--remove", is_flag=True, help="Write the model without token weights.")
@loading_options
def sif_command(
    model: str,
    output: Path,
    corpus: str | None,
    smoothing: float | None,
    limit: int | None,
    columns: str,
    remove: bool,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Weight tokens by smooth inverse frequency (SIF) in the mean of a sentence.

    A token that makes up the share p of a corpus gets the weight a / (a + p) (Arora, Liang, Ma
    2017), so rare tokens count more than frequent ones. Nothing is trained, encoding takes as long
    as before, and the folder stores the weights, also for sentence-transformers. Use it on a
    finished model or train from it.

    \b
    Examples:
      simcse sif runs/mine/best --fit wiki.txt --output mine-sif
      simcse sif runs/mine/best --fit wiki.txt --pooling mean_embedding_last --output mine-sif
      simcse evaluate sts runs/mine/best mine-sif
    """
    if remove is (corpus is not None) or (remove and smoothing is not None):
        raise click.UsageError("give --fit FILE, with --smoothing if you like, or --remove")
    from simcse.errors import UsageError
    from simcse.model.token_weights import SMOOTHING, fit_token_weights

    sentences, source = ([], {}) if corpus is None else read_corpus(corpus, columns, limit)
    encoder = load_encoder(model, precision="fp32", **loading)
    if encoder.postprocess is not None:
        layer = encoder.settings.postprocess
        raise UsageError(f"{model} has post-processing {layer}; remove it first, by --remove")
    if remove and encoder.token_weights is None:
        raise UsageError(f"{model} has no token weights to remove")
    weights, done = None, "all tokens have the same weight"
    if not remove:
        a = SMOOTHING if smoothing is None else smoothing
        rows = _tokenize(encoder.tokenizer, sentences)
        weights = fit_token_weights(rows, encoder.backbone.model.config.vocab_size, smoothing=a)
        source["smoothing"] = a
        count, name = source["sentences"], source["corpus"]
        done = f"token weights fitted on {count:,} sentences of {name}, a = {a:g}"
    encoder.with_token_weights(weights, source).save(output)
    click.echo(f"{output}: {done}", err=True)


def _tokenize(tokenizer: "Tokenizer", sentences: Sequence[str]) -> Iterator[list[int]]:
    from simcse.cli.progress import counting_bar
    from simcse.data.duplicates import chunks

    with counting_bar("counting tokens", len(sentences)) as advance:
        for chunk in chunks(sentences):
            yield from tokenizer.ids(chunk)
            advance(len(chunk))

"""``simcse weigh``."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import columns_option, load_encoder, loading_options, read_corpus

if TYPE_CHECKING:
    from simcse.text import Tokenizer


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Model folder to write."
)
@click.option("--fit", "corpus", metavar="FILE", help="Sentences to count, as `simcse encode`.")
@click.option(
    "--smoothing",
    type=float,
    help="a in a / (a + share of the token); smaller: frequent tokens count less; default 0.003.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the corpus' first sentences.")
@columns_option
@click.option("--remove", is_flag=True, help="Write the model with all tokens weighed the same.")
@loading_options
def weigh(
    model: str,
    output: Path,
    corpus: str | None,
    smoothing: float | None,
    limit: int | None,
    columns: str,
    remove: bool,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Let rare tokens count more than frequent ones in the mean of a sentence.

    Smooth inverse frequency (Arora, Liang, Ma 2017): a token that makes up the share p of a corpus
    weighs a / (a + p). Nothing is trained, encoding takes as long as before, and the folder keeps
    the weights, also for sentence-transformers. Use it on a finished model or train from it.

    \b
    Examples:
      simcse weigh runs/mine/best --fit wiki.txt --output mine-weighed
      simcse weigh runs/mine/best --fit wiki.txt --pooling mean_embedding_last --output weighed
      simcse evaluate sts runs/mine/best mine-weighed
    """
    if remove is (corpus is not None) or (remove and smoothing is not None):
        raise click.UsageError("give --fit FILE, with --smoothing if you like, or --remove")
    from simcse.errors import UsageError
    from simcse.model.token_weights import SMOOTHING, fit_token_weights

    sentences, told = ([], {}) if corpus is None else read_corpus(corpus, columns, limit)
    encoder = load_encoder(model, precision="fp32", **loading)
    if encoder.postprocess is not None:
        kind = encoder.settings.postprocess
        raise UsageError(f"{model} has post-processing {kind} of its embeddings; --remove it first")
    if remove and encoder.token_weights is None:
        raise UsageError(f"{model} weighs all tokens the same")
    weights, done = None, "all tokens weigh the same"
    if not remove:
        a = SMOOTHING if smoothing is None else smoothing
        rows = _tokenized(encoder.tokenizer, sentences)
        weights = fit_token_weights(rows, encoder.backbone.model.config.vocab_size, smoothing=a)
        told["smoothing"] = a
        done = f"tokens weighed by {told['sentences']:,} sentences of {told['corpus']}, a = {a:g}"
    encoder.with_token_weights(weights, told).save(output)
    click.echo(f"{output}: {done}", err=True)


def _tokenized(tokenizer: "Tokenizer", sentences: Sequence[str]) -> Iterator[list[int]]:
    from simcse.cli.progress import counting_bar
    from simcse.data.duplicates import chunks

    with counting_bar("counting tokens", len(sentences)) as advance:
        for chunk in chunks(sentences):
            yield from tokenizer.ids(chunk)
            advance(len(chunk))

"""``simcse postprocess``."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import columns_option, load_encoder, loading_options, read_corpus

if TYPE_CHECKING:
    import numpy as np

    from simcse.model.encoder import SentenceEncoder
    from simcse.postprocess import Layer

KINDS = ("whitening", "all-but-the-top", "flow")


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Model folder to write."
)
@click.option("--fit", "corpus", metavar="FILE", help="Sentences to fit on, as `simcse encode`.")
@click.option("--kind", type=click.Choice(KINDS), help="What to fit.")
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="Whitening: keep only the widest directions; default all that are spanned.",
)
@click.option(
    "--directions",
    type=click.IntRange(min=1),
    help="All-but-the-top: how many go; default D / 100.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=1, help="Flow: passes; default 1.")
@click.option("--seed", type=int, default=0, help="Flow: of its start and order; default 0.")
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=50_000,
    show_default=True,
    help="Sentences of the corpus, the first ones.",
)
@columns_option
@click.option("--remove", is_flag=True, help="Write the model without its post-processing.")
@loading_options
def postprocess(
    model: str,
    output: Path,
    corpus: str | None,
    kind: str | None,
    limit: int,
    columns: str,
    remove: bool,
    dimensions: int | None,
    directions: int | None,
    epochs: int,
    seed: int,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Fit whitening, all-but-the-top or a flow to a model's embeddings of a corpus.

    The result is a model folder: every command applies the layer, after pooling and head and
    before normalization. sentence-transformers opens it, too, but refuses a flow. Embeddings
    often rank similarity better afterward, and serve classifiers worse: measure both.

    \b
    Examples:
      simcse postprocess mini --fit sentences.txt --kind whitening --output mini-whitened
      simcse postprocess mini --fit sentences.txt --kind whitening --dimensions 128 --output small
      simcse postprocess mini-whitened --remove --output mini-again
      simcse evaluate all mini mini-whitened --fast
    """
    if remove is (corpus is not None) or remove is (kind is not None):
        raise click.UsageError("give --fit FILE and --kind KIND, or --remove")
    if dimensions is not None and kind != "whitening":
        raise click.UsageError("--dimensions goes with --kind whitening")
    if directions is not None and kind != "all-but-the-top":
        raise click.UsageError("--directions goes with --kind all-but-the-top")
    sentences, told = ([], {}) if corpus is None else read_corpus(corpus, columns, limit)
    encoder = load_encoder(model, precision="fp32", **loading)
    if kind is None:
        encoder = _bare(encoder, model)
    else:
        layer = _fit(kind, _embed(encoder, model, sentences), dimensions, directions, epochs, seed)
        encoder = _rebuilt(encoder, layer, kind.replace("-", "_"), told)
    encoder.save(output)
    click.echo(f"{output}: {encoder.dimensions} dimensions", err=True)


def _embed(encoder: "SentenceEncoder", model: str, sentences: list[str]) -> "np.ndarray":
    from simcse.errors import UsageError

    if encoder.postprocess is not None:
        kind = encoder.settings.postprocess
        raise UsageError(f"{model} has the post-processing {kind} already; --remove it first")
    bare = encoder.without_postprocess()
    return bare.encode(sentences, truncation="truncate", progress=True)


def _fit(
    kind: str,
    vectors: "np.ndarray",
    dimensions: int | None,
    directions: int | None,
    epochs: int,
    seed: int,
) -> "Layer":
    from simcse.postprocess import fit_all_but_the_top, fit_flow, fit_whitening

    if kind == "whitening":
        return fit_whitening(vectors, dimensions=dimensions)
    if kind == "all-but-the-top":
        return fit_all_but_the_top(vectors, directions=directions)
    with _flow_progress() as observe:
        return fit_flow(vectors, epochs=epochs, seed=seed, observe=observe)


@contextmanager
def _flow_progress() -> Iterator[Callable[[int, int, float], None]]:
    """Show the flow's steps and negative log-likelihood on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("flow"), BarColumn(), MofNCompleteColumn())
    likelihood = TextColumn("{task.fields[loss]:.4f} nats a dimension")
    with Progress(*columns, likelihood, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("flow", total=None, loss=0.0)
        yield lambda step, steps, loss: bar.update(task, completed=step, total=steps, loss=loss)


def _rebuilt(
    encoder: "SentenceEncoder", layer: "Layer | None", kind: str, told: dict[str, Any]
) -> "SentenceEncoder":
    """Return the encoder with this layer, and in its provenance what it was fitted on."""
    rebuilt = encoder.with_postprocess(kind, layer)  # type: ignore[arg-type]  # one of KINDS
    provenance = {key: value for key, value in encoder.provenance.items() if key != "postprocess"}
    rebuilt.provenance = {**provenance, "postprocess": told} if told else provenance
    return rebuilt


def _bare(encoder: "SentenceEncoder", model: str) -> "SentenceEncoder":
    from simcse.errors import UsageError

    if encoder.postprocess is None:
        raise UsageError(f"{model} has no post-processing to remove")
    return _rebuilt(encoder, None, "none", {})

"""``simcse postprocess``."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.average import model_output_option
from simcse.cli.options import columns_option, load_encoder, loading_options, read_corpus

if TYPE_CHECKING:
    import numpy as np

    from simcse.postprocess import Layer

LAYER_TYPES = ("whitening", "all-but-the-top", "flow")


@click.command("postprocess")
@click.argument("model", metavar="MODEL")
@model_output_option
@click.option("--fit", "corpus", metavar="FILE", help="File of sentences to fit the layer on.")
@click.option("--type", "layer_type", type=click.Choice(LAYER_TYPES), help="Layer to fit.")
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="Number of widest directions that whitening leaves; default all that are spanned.",
)
@click.option(
    "--directions",
    type=click.IntRange(min=1),
    help="Number of directions that all-but-the-top removes; default D / 100.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of passes over the sentences to fit a flow.",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed to fit a flow with."
)
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=50_000,
    show_default=True,
    help="Number of sentences to read from the file.",
)
@columns_option
@click.option("--remove", is_flag=True, help="Write the model without its post-processing.")
@loading_options
def postprocess_command(
    model: str,
    output: Path,
    corpus: str | None,
    layer_type: str | None,
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
    before normalization. sentence-transformers opens it, too, but rejects a flow. Embeddings
    often rank similarity better afterward, and serve classifiers worse: measure both.

    \b
    Examples:
      simcse postprocess mini --fit sentences.txt --type whitening --output mini-whitened
      simcse postprocess mini --fit sentences.txt --type whitening --dimensions 128 --output small
      simcse postprocess mini-whitened --remove --output mini-again
      simcse evaluate all mini mini-whitened --fast
    """
    if remove is (corpus is not None) or remove is (layer_type is not None):
        raise click.UsageError("give --fit FILE and --type TYPE, or --remove")
    if dimensions is not None and layer_type != "whitening":
        raise click.UsageError("--dimensions needs --type whitening")
    if directions is not None and layer_type != "all-but-the-top":
        raise click.UsageError("--directions needs --type all-but-the-top")
    from simcse.errors import UsageError

    sentences, source = ([], {}) if corpus is None else read_corpus(corpus, columns, limit)
    encoder = load_encoder(model, precision="fp32", **loading)
    if remove is (encoder.postprocess is None):
        found = encoder.settings.postprocess
        raise UsageError(
            f"{model} has no post-processing to remove"
            if remove
            else f"{model} has the post-processing {found} already; remove it first, by --remove"
        )
    layer = None
    if layer_type is not None:
        bare = encoder.without_postprocess()
        vectors = bare.encode(sentences, truncation="truncate", progress=True)
        layer = _fit(layer_type, vectors, dimensions, directions, epochs, seed)
    name = (layer_type or "none").replace("-", "_")
    fitted = encoder.with_postprocess(name, layer)  # type: ignore[arg-type]  # one of LAYER_TYPES
    fitted.provenance.pop("postprocess", None)
    if source:
        fitted.provenance["postprocess"] = source
    fitted.save(output)
    click.echo(f"{output}: {fitted.dimensions} dimensions", err=True)


def _fit(
    layer_type: str,
    vectors: "np.ndarray",
    dimensions: int | None,
    directions: int | None,
    epochs: int,
    seed: int,
) -> "Layer":
    from simcse.postprocess import fit_all_but_the_top, fit_flow, fit_whitening

    if layer_type == "whitening":
        return fit_whitening(vectors, dimensions=dimensions)
    if layer_type == "all-but-the-top":
        return fit_all_but_the_top(vectors, directions=directions)
    with _flow_progress() as on_step:
        return fit_flow(vectors, epochs=epochs, seed=seed, on_step=on_step)


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

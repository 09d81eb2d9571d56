"""``simcse calibrate``: the meaning of a cosine on an index."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import INDEX_URI, index_model_option, load_for
from simcse.cli.options import columns_option, loading_options, precision_option, print_note

if TYPE_CHECKING:
    from simcse.index.uri import IndexUri


@click.command("calibrate")
@click.argument("uri", metavar="INDEX", type=INDEX_URI)
@click.option(
    "--pairs",
    "pairs_file",
    type=click.Path(path_type=Path),
    help="File of labeled pairs: a label (1 is a match, 0 is none) and two sentences a row.",
)
@columns_option
@click.option(
    "--min-precision",
    type=click.FloatRange(0, 1, min_open=True),
    help="Precision that the threshold must have; by default it is that of the best F1.",
)
@click.option("--seed", default=0, show_default=True, help="Random seed for the pairs.")
@index_model_option
@precision_option("auto")
@loading_options
def calibrate_command(
    uri: IndexUri,
    pairs_file: Path | None,
    columns: str,
    min_precision: float | None,
    seed: int,
    model: str | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Measure what a cosine means: its percentile in the index, and the probability of a match.

    The percentile is the fraction of random pairs of rows with a lower cosine. Labeled pairs,
    which should resemble the pairs you will ask about, add the probability of a match and a
    threshold with its cross-validated precision. Both are stored with the index; the server
    returns them with every hit.

    \b
    Examples:
      simcse calibrate my-index
      simcse calibrate my-index --pairs labeled.tsv --min-precision 0.9
    """
    from simcse.evaluate.vectors import cosine
    from simcse.index.calibration import calibrate_index, fit_match
    from simcse.index.uri import open_index
    from simcse.io.records import read_scored_pairs

    pairs = (
        []
        if pairs_file is None
        else read_scored_pairs(pairs_file, columns=columns, note=print_note)
    )
    index = open_index(uri)
    calibration = calibrate_index(index, seed=seed)
    if pairs:
        encoder = load_for(index, model, **loading)
        first, second, labels = zip(*pairs, strict=True)
        vectors = encoder.encode([*first, *second])
        scores = cosine(vectors[: len(first)], vectors[len(first) :])
        match = fit_match(scores, labels, precision=min_precision)
        calibration = dataclasses.replace(calibration, match=match)
    index.commit(calibration=calibration.to_json())
    last = len(calibration.quantiles) - 1
    for fraction in (0.5, 0.9, 0.99, 0.999):
        quantile = calibration.quantiles[round(fraction * last)]
        click.echo(f"{100 * fraction:g} % of random pairs are below {quantile:.3f}")
    if calibration.match is not None:
        found = calibration.match
        click.echo(
            f"threshold {found.threshold:.3f}: precision {found.precision:.3f}, recall "
            f"{found.recall:.3f} ({found.pairs:,} pairs, 5-fold), probability there "
            f"{found.probability(found.threshold):.3f}"
        )

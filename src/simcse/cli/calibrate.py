"""``simcse calibrate``: what a cosine means on an index."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.indexing import PLACE, load_for, open_index
from simcse.cli.options import columns_option, loading_options, precision_option, print_note

if TYPE_CHECKING:
    from simcse.index.uri import Place


@click.command()
@click.argument("place", metavar="INDEX", type=PLACE)
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
    help="Choose the lowest threshold with this precision; without, that of the best F1.",
)
@click.option("--seed", default=0, show_default=True, help="Of the random pairs.")
@click.option("--model", metavar="NAME", help="Default: the model the index was built with.")
@precision_option("auto")
@loading_options
def calibrate(
    place: Place,
    pairs_file: Path | None,
    columns: str,
    min_precision: float | None,
    seed: int,
    model: str | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Say what a cosine means: its percentile among the index's own sentences, and a probability.

    The percentile is the share of random pairs of rows with a lower cosine. Labeled pairs, as
    like as can be to those that will be asked about, add the probability of a match and a
    threshold with its cross-validated precision. Both are stored with the index; the server
    returns them with every hit.

    \b
    Examples:
      simcse calibrate my-index
      simcse calibrate my-index --pairs labeled.tsv --min-precision 0.9
    """
    from simcse.evaluate.vectors import cosine
    from simcse.index.calibration import calibrate as measure
    from simcse.index.calibration import fit_match
    from simcse.io.records import read_scored_pairs

    pairs = (
        []
        if pairs_file is None
        else read_scored_pairs(pairs_file, columns=columns, note=print_note)
    )
    index = open_index(place)
    calibration = measure(index, seed=seed)
    if pairs:
        encoder = load_for(index, model, **loading)
        first, second, labels = zip(*pairs, strict=True)
        vectors = encoder.encode([*first, *second])
        scores = cosine(vectors[: len(first)], vectors[len(first) :])
        match = fit_match(scores, labels, precision=min_precision)
        calibration = dataclasses.replace(calibration, match=match)
    index.annotate(calibration=calibration.to_json())
    at = len(calibration.quantiles) - 1
    for share in (0.5, 0.9, 0.99, 0.999):
        cosine_there = calibration.quantiles[round(share * at)]
        click.echo(f"{100 * share:g} % of random pairs are below {cosine_there:.3f}")
    if calibration.match is not None:
        found = calibration.match
        click.echo(
            f"threshold {found.threshold:.3f}: precision {found.precision:.3f}, recall "
            f"{found.recall:.3f} ({found.pairs:,} pairs, 5-fold), probability there "
            f"{found.probability(found.threshold):.3f}"
        )

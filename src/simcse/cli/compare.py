"""``simcse compare``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.output import format_option, show

if TYPE_CHECKING:
    from simcse.report.comparison import Items

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("first", metavar="A.json", type=FILE)
@click.argument("second", metavar="B.json", type=FILE)
@click.option("--model-a", metavar="NAME", help="Which model of A.json, if it has several.")
@click.option("--model-b", metavar="NAME", help="Which model of B.json, if it has several.")
@format_option
def compare(first: Path, second: Path, model_a: str | None, model_b: str | None, form: str) -> None:
    """Say whether two evaluated models differ by more than the luck of the test items.

    A.json and B.json are results.json of `simcse evaluate sts|transfer|all --output FOLDER`. Every
    task in both is compared by a paired bootstrap: the same pairs or examples, drawn again 1,000
    times. STS is compared by the aggregation "all", transfer by the share of examples told right.

    \b
    Examples:
      simcse compare before/results.json after/results.json
      simcse compare all/results.json all/results.json --model-a mini --model-b mini-whitened
    """
    from simcse.report.comparison import compare as compare_items
    from simcse.report.comparison import comparison_table

    left, right = _items(first, model_a, "--model-a"), _items(second, model_b, "--model-b")
    show(comparison_table(left.model, right.model, compare_items(left, right)), form)


def _items(path: Path, name: str | None, option: str) -> "Items":
    from simcse.errors import UsageError
    from simcse.io.results import read_results
    from simcse.report.comparison import read_items

    models = read_items(read_results(path), path)
    known = ", ".join(model.model for model in models)
    if name is None and len(models) != 1:
        raise UsageError(f"{path} has {len(models)} models ({known}): choose by {option}")
    found = [model for model in models if name in (None, model.model)]
    if not found:
        raise UsageError(f"{path} has no model {name!r}; it has {known}")
    return found[0]

"""``simcse compare``."""

from pathlib import Path

import click

from simcse.cli.output import format_option, show

FILE = click.Path(path_type=Path)


@click.command("compare")
@click.argument("first", metavar="A.json", type=FILE)
@click.argument("second", metavar="B.json", type=FILE)
@click.option("--model-a", metavar="NAME", help="Name of the model in A.json, if it has several.")
@click.option("--model-b", metavar="NAME", help="Name of the model in B.json, if it has several.")
@format_option
def compare_command(
    first: Path, second: Path, model_a: str | None, model_b: str | None, form: str
) -> None:
    """Test whether the difference between two evaluated models is significant.

    A.json and B.json are results.json of `simcse evaluate sts|transfer|all --output FOLDER`. Every
    task in both is compared by a paired bootstrap, which resamples the same pairs or examples
    1,000 times. STS is compared by the aggregation "all", transfer by accuracy.

    \b
    Examples:
      simcse compare before/results.json after/results.json
      simcse compare all/results.json all/results.json --model-a mini --model-b mini-whitened
    """
    from simcse.io.results import read_results
    from simcse.report.comparison import find_model, model_comparison_table, read_item_scores

    left, right = (
        find_model(read_item_scores(read_results(path), path), name, path, option)
        for path, name, option in ((first, model_a, "--model-a"), (second, model_b, "--model-b"))
    )
    show(model_comparison_table(left, right), form)

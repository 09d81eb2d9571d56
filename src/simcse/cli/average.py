"""``simcse average``."""

from pathlib import Path
from typing import Any

import click

from simcse.cli.options import load_encoder, loading_options

model_output_option = click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Model folder to write."
)


@click.command("average")
@click.argument("models", nargs=-1, required=True, metavar="MODEL MODEL...")
@model_output_option
@loading_options
def average_command(models: tuple[str, ...], output: Path, **loading: Any) -> None:  # noqa: ANN401 - passed on by name
    """Average the weights of models trained from one start: several seeds, or several settings.

    \b
    Example:
      simcse average runs/five/seed-*/best --output averaged
      simcse evaluate sts runs/five/seed-0/best averaged
    """
    from simcse.model.average import average_encoders

    encoders = [load_encoder(model, precision="fp32", **loading) for model in models]
    average_encoders(encoders).save(output)
    click.echo(f"{output}: the mean of {len(models)} models", err=True)

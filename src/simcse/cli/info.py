"""``simcse info``."""

import json
from dataclasses import asdict
from typing import Any

import click

from simcse.cli.options import load_encoder, loading_options


@click.command("info")
@click.argument("model", default="mini")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@loading_options
def info_command(model: str, as_json: bool, **loading: Any) -> None:  # noqa: ANN401 - passed on by name
    """Describe a model: architecture, pooling, head, length limit, provenance.

    \b
    Examples:
      simcse info
      simcse info runs/mine/best --json
    """
    from rich.console import Console
    from rich.table import Table

    from simcse.model.precision import choose_precision

    encoder = load_encoder(model, precision="fp32", **loading)
    backbone = encoder.backbone
    properties = {
        "model": model,
        "architecture": type(backbone.model).__name__,
        "layers": backbone.layer_count,
        "dimensions": encoder.dimensions,
        "parameters": sum(weight.numel() for weight in encoder.parameters()),
        "execution": "packed" if backbone.packed else "padded (its attention cannot be packed)",
        "precision, if auto": choose_precision("auto", encoder.device, width=backbone.width),
        **asdict(encoder.settings),
        "token weights": encoder.provenance.get("token_weights", encoder.token_weights is not None),
        "provenance": encoder.provenance,
    }
    if as_json:
        click.echo(json.dumps(properties, indent=2))
        return
    if averaged := encoder.provenance.get("average of"):
        text = f"the mean of {len(averaged)} models; --json shows how each was made"
        properties["provenance"] = text
    table = Table(show_header=False, box=None)
    for name, value in properties.items():
        text = json.dumps(value, indent=2) if isinstance(value, dict) else value
        table.add_row(name, f"{text:,}" if name == "parameters" else str(text))
    Console().print(table, highlight=False, markup=False)

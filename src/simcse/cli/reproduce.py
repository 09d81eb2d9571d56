"""``simcse reproduce``."""

from pathlib import Path

import click


@click.command("reproduce")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Run folder to write, by default FOLDER-again.",
)
def reproduce_command(folder: Path, output: Path | None) -> None:
    """Train the run in FOLDER once more from its settings.toml, and compare.

    Training files and start model must still exist with the same SHA-256. If the weights are not
    the same bit for bit, the exit code is 1, and differences of this machine are printed.

    \b
    Example:
      simcse reproduce runs/mine
    """
    from simcse.cli.output import show
    from simcse.errors import SimcseError
    from simcse.report.tables import Column, Table
    from simcse.train.progress import ProgressBar
    from simcse.train.reproduce import reproduce

    output = output or folder.with_name(f"{folder.name}-again")
    with ProgressBar("again") as progress:
        found = reproduce(folder, output, callbacks=[progress])
    metrics = tuple(
        (f"{name}, best", value, found.again.best.get(name))
        for name, value in found.before.best.items()
    )
    rows = (("best step", found.before.best_step, found.again.best_step), *metrics)
    columns = (Column("Value"), Column("Before", decimals=4), Column("Again", decimals=4))
    show(Table(f"{folder} and {output}", columns, rows), "table")
    for difference in found.surroundings:
        click.echo(f"note: {difference}", err=True)
    if any(found.differences.values()):
        differences = ", ".join(
            f"{name}/ by up to {d:.2g}" for name, d in found.differences.items()
        )
        raise SimcseError(f"not reproduced bit for bit: weights differ, {differences}")
    click.echo("reproduced bit for bit")

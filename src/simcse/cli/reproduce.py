"""``simcse reproduce``."""

from pathlib import Path

import click


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Run folder to write; else FOLDER-again."
)
def reproduce(folder: Path, output: Path | None) -> None:
    """Train the run in FOLDER once more from its settings.toml, and compare.

    Data and start model must be where they were, with the same SHA-256. Weights that are not the
    same bit for bit make the exit code 1; what differs on this machine is named.

    \b
    Example:
      simcse reproduce runs/mine
    """
    from simcse.cli.output import show
    from simcse.cli.progress import TrainProgress
    from simcse.errors import SimcseError
    from simcse.report.tables import Column, Table
    from simcse.train.reproduce import reproduce as run_again

    output = output or folder.with_name(f"{folder.name}-again")
    with TrainProgress("again") as progress:
        found = run_again(folder, output, observe=progress)
    metrics = tuple(
        (f"{name}, best", value, found.again.best.get(name))
        for name, value in found.before.best.items()
    )
    rows = (("best step", found.before.best_step, found.again.best_step), *metrics)
    columns = (Column("What"), Column("Then", decimals=4), Column("Now", decimals=4))
    show(Table(f"{folder} and {output}", columns, rows), "table")
    for difference in found.surroundings:
        click.echo(f"note: {difference}", err=True)
    if any(found.differences.values()):
        told = ", ".join(f"{name}/ by up to {d:.2g}" for name, d in found.differences.items())
        raise SimcseError(f"not reproduced bit for bit: weights differ, {told}")
    click.echo("reproduced bit for bit")

"""``simcse paper`` and ``simcse sweep``."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import Command
from simcse.cli.output import show

if TYPE_CHECKING:
    from simcse.paper.grid import Grid

FILE = click.Path(path_type=Path)


def grid_options(sentences: int | None) -> Callable[[Command], Command]:
    """Add what says how a grid is carried out; ``sentences`` is the command's own default."""

    def add(command: Command) -> Command:
        for option in (
            click.argument("settings", nargs=-1, metavar="[section.key=value]..."),
            click.option("--keep", is_flag=True, help="Keep the models in OUTPUT/.work/runs."),
            click.option(
                "--fast", is_flag=True, help="SentEval's quick variant of the transfer tasks."
            ),
            click.option(
                "--masked-model",
                metavar="NAME",
                help="Masked-language model, for rows that replace words by its predictions.",
            ),
            click.option(
                "--rows",
                multiple=True,
                help="Only these rows: a name, or several parted by commas; may be repeated.",
            ),
            click.option(
                "--seeds",
                default=3,
                show_default=True,
                type=click.IntRange(1),
                help="Runs of each row; of fewer than 3 the report has no p-values.",
            ),
            click.option(
                "--sentences",
                default=sentences,
                show_default=sentences is not None,
                type=click.IntRange(0),
                metavar="N",
                help="Rows to train on, the first ones; 0 takes all of the corpus.",
            ),
            click.option("--corpus", type=FILE, help="Training file in place of the grid's."),
            click.option("--backbone", metavar="NAME", help="Start model in place of the grid's."),
        ):
            command = option(command)
        return command

    return add


@click.group()
def paper() -> None:
    """The paper's tables and figures, rerun on any backbone, corpus and scale.

    \b
    Examples:
      simcse paper list
      simcse paper run 3 --backbone minilm-l6-h384 model.pooling=mean optim.lr=2e-4
      simcse paper report paper
    """


@paper.command("list")
def list_tables() -> None:
    """Show the tables and figures: title, rows, and what they are ranked by.

    Each is a TOML file in the folder that is named, to read and to copy for `simcse sweep`.
    """
    from simcse.paper.grid import GRIDS, list_grids, paper_grid
    from simcse.paper.measures import title
    from simcse.report.tables import Column, Table

    grids = [paper_grid(name) for name in list_grids()]
    rows = tuple(
        (
            grid.name,
            grid.title,
            len(grid.rows),
            "; ".join(map(title, grid.measures)),
            grid.corpus or "a file a row",
        )
        for grid in grids
    )
    titles = ("Table", "Title", "Rows", "Ranked by", "Corpus")
    show(Table("The paper's tables and figures", tuple(map(Column, titles)), rows), "table")
    click.echo(f"files: {GRIDS}", err=True)


@paper.command()
@click.argument("table")
@click.option(
    "--output",
    type=FILE,
    default=Path("paper"),
    show_default=True,
    help="Folder of results and pages; tables that share it share runs.",
)
@grid_options(10_000)
def run(table: str, output: Path, **asked: Any) -> None:  # noqa: ANN401 - passed on by name
    """Rerun a table or figure, and report it beside the published one.

    A row is trained by the paper's recipe with what the row changes, one run a seed, and measured.
    What a backbone needs, such as model.pooling=mean, is given as settings and holds for every
    row but those that set it themselves. Without --backbone it is the paper's, from the hub.

    The same command goes on after an interruption, and adds seeds or rows; a run that is in
    OUTPUT/results, by whatever table, is not repeated. Models of finished runs are deleted unless
    --keep is given. OUTPUT has a page for each table as .html and .md, and an index.

    \b
    Examples:
      simcse paper run 3 --backbone mini --sentences 2000 --seeds 1
      simcse paper run 6 --backbone minilm-l6-h384 --output docs/paper optim.lr=2e-4
      simcse paper run 3 --rows "p = 0,p = 0.5"
      simcse paper run 3 --sentences 0
    """
    from simcse.paper.grid import paper_grid

    _carry_out(paper_grid(table), output, **asked)


@paper.command()
@click.argument("folder", type=FILE)
@click.option(
    "--quote",
    is_flag=True,
    help="Quote sentences that were found, not only their lines; they are their data set's.",
)
def report(folder: Path, quote: bool) -> None:
    """Write the pages of FOLDER anew from its results, without training.

    \b
    Example:
      simcse paper report paper
    """
    _write_pages(folder, quote=quote)


@click.command()
@click.argument("grid", type=FILE)
@click.option(
    "--output",
    type=FILE,
    default=Path("sweep"),
    show_default=True,
    help="Folder of results and pages; grids that share it share runs.",
)
@grid_options(None)
def sweep(grid: Path, output: Path, **asked: Any) -> None:  # noqa: ANN401 - passed on by name
    """Run a grid of your own, as `simcse paper run` runs the paper's.

    GRID is a TOML file: a title, a corpus, the settings of every row, and the rows. Any setting of
    `simcse train` may change. `published` scores may be given, and are then compared with.

    \b
      title = "How hard should hard negatives count?"
      corpus = "triplets.tsv"
      backbone = "mini"
      settings.optim.lr = 2e-5
      [[row]]
      name = "alpha 1"
      baseline = true
      [[row]]
      name = "alpha 2"
      settings.loss.hard_negative_weight = 2

    \b
    Examples:
      simcse sweep my.toml --seeds 5 --output sweeps/alpha
      simcse sweep my.toml --sentences 2000 --seeds 1
    """
    from simcse.paper.grid import read_grid

    _carry_out(read_grid(grid), output, **asked)


def _carry_out(
    grid: "Grid",
    output: Path,
    *,
    settings: tuple[str, ...],
    rows: tuple[str, ...],
    sentences: int | None,
    **asked: Any,  # noqa: ANN401 - passed on by name
) -> None:
    from simcse.config import parse_overrides
    from simcse.errors import StoppedError
    from simcse.paper.plan import Options, shortened
    from simcse.paper.progress import GridProgress
    from simcse.paper.runner import run_grid

    names = [row.name for row in grid.rows]  # which may have commas, too
    asked_rows = [[text] if text in names else text.split(",") for text in rows]
    options = Options(
        rows=tuple(name.strip() for several in asked_rows for name in several),
        settings=parse_overrides(settings),
        sentences=sentences or None,
        **asked,
    )
    typed = map(shortened, click.get_current_context().obj)
    command = shlex.join(["simcse", *typed])
    try:
        with GridProgress(grid.slug) as progress:
            run_grid(grid, output, options, command=command, callback=progress)
    except StoppedError:
        _write_pages(output)
        raise
    _write_pages(output, grid.slug)


def _write_pages(folder: Path, slug: str = "index", *, quote: bool = False) -> None:
    from simcse.paper.outcome import write_pages

    for page in write_pages(folder, quote=quote):
        for comparison in page.comparisons:
            click.echo(f"{page.title}. {comparison.title}: {comparison.verdict}")
    click.echo(f"report: {folder / slug}.html", err=True)

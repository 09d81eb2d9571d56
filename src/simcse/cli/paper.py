"""``simcse paper`` and ``simcse sweep``."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import Command, count_option
from simcse.cli.output import show

if TYPE_CHECKING:
    from simcse.paper.grid import Grid

FILE = click.Path(path_type=Path)


def grid_options(output: str, sentences: int | None) -> Callable[[Command], Command]:
    """Add the options of a command that runs a grid, with the command's own defaults."""

    def add(command: Command) -> Command:
        for option in (
            click.argument("settings", nargs=-1, metavar="[section.key=value]..."),
            click.option(
                "--save-models", is_flag=True, help="Save the trained models in OUTPUT/.work/runs."
            ),
            click.option(
                "--fast", is_flag=True, help="Use SentEval's quick variant of the transfer tasks."
            ),
            click.option(
                "--masked-model",
                metavar="NAME",
                help="Masked-language model for rows that replace words by its predictions.",
            ),
            click.option(
                "--rows",
                multiple=True,
                metavar="NAMES",
                help="Rows to run: a name, or several separated by commas; may be repeated.",
            ),
            count_option(
                "--seeds", "Number of runs per row; fewer than 3 have no p-values.", default=3
            ),
            count_option(
                "--sentences",
                "Number of rows to train on, from the start of the corpus; 0 means all.",
                default=sentences,
                minimum=0,
            ),
            click.option("--corpus", type=FILE, help="Training file in place of the grid's."),
            click.option("--backbone", metavar="NAME", help="Start model in place of the grid's."),
            click.option(
                "--output",
                type=FILE,
                default=Path(output),
                help="Folder of results and pages; grids that share it share runs.",
            ),
        ):
            command = option(command)
        return command

    return add


@click.group("paper")
def paper_group() -> None:
    """Rerun the paper's tables and figures on any backbone, corpus and scale.

    \b
    Examples:
      simcse paper list
      simcse paper run 3 --backbone minilm-l6-h384 model.pooling=mean optim.lr=2e-4
      simcse paper report paper
    """


@paper_group.command("list")
def paper_list_command() -> None:
    """List the tables and figures: title, number of rows, and the metrics that rank the rows.

    Each is a TOML file in the folder that is printed, which you can copy for `simcse sweep`.

    \b
    Example:
      simcse paper list
    """
    from simcse.paper.grid import GRIDS, list_grids, paper_grid
    from simcse.paper.metrics import metric_title
    from simcse.report.tables import Column, Table

    grids = [paper_grid(name) for name in list_grids()]
    rows = tuple(
        (
            grid.name,
            grid.title,
            len(grid.rows),
            "; ".join(map(metric_title, grid.metrics)),
            grid.corpus or "a file per row",
        )
        for grid in grids
    )
    titles = ("Table", "Title", "Rows", "Ranked by", "Corpus")
    show(Table("The paper's tables and figures", tuple(map(Column, titles)), rows), "table")
    click.echo(f"files: {GRIDS}", err=True)


@paper_group.command("run")
@click.argument("table")
@grid_options("paper", 10_000)
def paper_run_command(table: str, output: Path, **options: Any) -> None:  # noqa: ANN401
    """Rerun a table or figure and compare it with the published one.

    Each row is trained by the paper's recipe and the settings of the row, one run per seed, and
    evaluated. Settings that a backbone needs, such as model.pooling=mean, are arguments and apply
    to all rows except those that set them. Without --backbone, the paper's is loaded from the hub.

    After an interruption, the same command continues; it also adds seeds or rows. A run whose
    result is in OUTPUT/results, from any table, is not repeated. Models are deleted after their
    evaluation unless --save-models is given. OUTPUT receives a page per table, as .html and .md,
    and an index.

    \b
    Examples:
      simcse paper run 3 --backbone mini --sentences 2000 --seeds 1
      simcse paper run 6 --backbone minilm-l6-h384 --output docs/paper optim.lr=2e-4
      simcse paper run 3 --rows "p = 0,p = 0.5"
      simcse paper run 3 --sentences 0
    """
    from simcse.paper.grid import paper_grid

    _run(paper_grid(table), output, **options)


@paper_group.command("report")
@click.argument("folder", type=FILE)
@click.option(
    "--quote",
    is_flag=True,
    help="Quote the sentences that were found instead of their line numbers.",
)
def paper_report_command(folder: Path, quote: bool) -> None:
    """Write the pages of FOLDER again from its results, without training.

    \b
    Example:
      simcse paper report paper
    """
    _write_pages(folder, quote=quote)


@click.command("sweep")
@click.argument("grid", type=FILE)
@grid_options("sweep", None)
def sweep_command(grid: Path, output: Path, **options: Any) -> None:  # noqa: ANN401
    """Run a grid of your own in the same way as `simcse paper run`.

    GRID is a TOML file with a title, a corpus, settings of every row, and the rows. A row can
    change any setting of `simcse train`, and can have `published` scores to be compared with.

    \b
      title = "Weight of hard negatives"
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

    _run(read_grid(grid), output, **options)


def _run(
    grid: "Grid",
    output: Path,
    *,
    settings: tuple[str, ...],
    rows: tuple[str, ...],
    sentences: int | None,
    **options: Any,  # noqa: ANN401 - passed on by name
) -> None:
    from simcse.config import parse_overrides
    from simcse.errors import StoppedError
    from simcse.paper.plan import GridOptions, shortened
    from simcse.paper.progress import GridProgress
    from simcse.paper.runner import run_grid

    names = [row.name for row in grid.rows]  # which may contain commas
    chosen = [[text] if text in names else text.split(",") for text in rows]
    parsed = GridOptions(
        rows=tuple(name.strip() for several in chosen for name in several),
        settings=parse_overrides(settings),
        sentences=sentences or None,
        **options,
    )
    words = map(shortened, click.get_current_context().obj)
    command = shlex.join(["simcse", *words])
    try:
        with GridProgress(grid.slug) as progress:
            run_grid(grid, output, parsed, command=command, callback=progress)
    except StoppedError:
        _write_pages(output)
        raise
    _write_pages(output, grid.slug)


def _write_pages(folder: Path, slug: str = "index", *, quote: bool = False) -> None:
    from simcse.paper.report import write_pages

    for page in write_pages(folder, quote=quote):
        for comparison in page.comparisons:
            click.echo(f"{page.title}. {comparison.title}: {comparison.verdict}")
    click.echo(f"report: {folder / slug}.html", err=True)

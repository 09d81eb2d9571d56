"""``simcse adapt``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.options import model_option, resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.evaluate.retrieval import RetrievalSet
    from simcse.report.tables import Table
    from simcse.train.adapt import Adaptation

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("corpus", type=FILE)
@run_folder_option
@model_option
@click.option("--pairs", type=FILE, help="Query and its document a row, to compare on.")
@click.option("--groups", type=FILE, help="Two sentences of one meaning a row, to compare on.")
@click.option("--columns", help="Where --pairs or --groups has them, such as 1,2.")
@resume_option
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def adapt(
    corpus: Path,
    output: Path,
    model: str,
    pairs: Path | None,
    groups: Path | None,
    columns: str | None,
    settings: tuple[str, ...],
    resume: bool,
) -> None:
    """Adapt a model to your own text, without labels, in minutes.

    CORPUS is text with one sentence a line, or what else `simcse train` takes. The first 20,000
    rows train at a gentle rate (data.limit, optim.lr); every 25 steps the model is looked at by its
    loss on rows that are held out, and training stops after 4 looks without a better one. Every
    setting of `simcse train` may be given. Token weights, if the model has any, are first counted
    anew on CORPUS, from 1,000 rows on.

    OUTPUT/best/ is the chosen model; where token weights alone rank your labeled --pairs or
    --groups as well as the trained model does, it has those alone. If none is better than the
    start model, or if it ranks them worse, it is not handed over: there is no best/ but a refused/,
    and the exit code is 6. Choose by the held-out loss alone with care: it always likes the corpus.

    \b
    Examples:
      simcse adapt sentences.txt --output runs/mine
      simcse adapt tickets.txt --output runs/tickets --pairs questions_and_answers.tsv
      simcse adapt wiki.txt.gz --model runs/old/best --output runs/new data.limit=5000
    """
    from simcse.cli.progress import TrainProgress
    from simcse.cli.train import read_settings, stored_settings, write_report
    from simcse.errors import NumericError
    from simcse.train import adapt as adapting
    from simcse.train.processes import is_first_process

    if pairs is not None and groups is not None:
        raise click.UsageError("give --pairs or --groups, not both")
    asked = _labeled(pairs, groups, columns)
    stored = stored_settings(output) if resume else {}
    config = read_settings(stored or adapting.SETTINGS, None, settings)
    command = shlex.join(["simcse", *click.get_current_context().obj])
    with TrainProgress("adapting") as progress:
        found = adapting.adapt(
            model,
            [corpus],
            output,
            config,
            pairs=asked,
            resume=resume,
            command=command,
            observe=progress,
        )
    if not is_first_process():
        return
    tables = [_table(found, asked.name)] if asked else []
    write_report(output, *tables, title="Adaptation")
    if found.refusal:
        raise NumericError(f"the adapted model is not handed over: {found.refusal}")
    _show(found, output, tables)


def _labeled(pairs: Path | None, groups: Path | None, columns: str | None) -> "RetrievalSet | None":
    from simcse.cli.evaluate_options import read_pairs
    from simcse.evaluate.retrieval import groups_set, pairs_set

    if pairs is not None:
        return pairs_set(pairs.name, read_pairs(pairs, columns))
    return None if groups is None else groups_set(groups.name, read_pairs(groups, columns))


def _table(found: "Adaptation", name: str) -> "Table":
    from simcse.report.tables import Column, Table

    titles = ("Pairs", "Before", "After", "Difference", "From", "To", "p")
    columns = tuple(Column(title, 3 if title == "p" else 2) for title in titles)
    seen = found.pairs
    rows = []
    if seen is not None:
        rows = [(name, seen.first, seen.second, seen.difference, seen.low, seen.high, seen.p)]
    return Table("Mean reciprocal rank x100, with its 95 % interval", columns, tuple(rows))


def _show(found: "Adaptation", output: Path, tables: "list[Table]") -> None:
    from simcse.cli.output import show

    for table in tables:
        show(table, "table")
    if not found.trained:
        click.echo(
            f"token weights alone rank {tables[0].rows[0][0]} no worse: training is left out"
        )
    run = found.training
    before, after = run.start.get("heldout_loss"), run.best.get("heldout_loss")
    if before is not None and after is not None:
        click.echo(f"held-out loss: {before:.4f} before, {after:.4f} at step {run.best_step}")
    click.echo(f"model: {output}/best; report: {output}/report.html")

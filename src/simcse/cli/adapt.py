"""``simcse adapt``."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from simcse.cli.options import model_option, resume_option, run_folder_option

if TYPE_CHECKING:
    from simcse.evaluate.retrieval import RetrievalSet
    from simcse.train.adapt import Adaptation

FILE = click.Path(path_type=Path)


@click.command("adapt")
@click.argument("corpus", type=FILE)
@run_folder_option
@model_option
@click.option("--pairs", type=FILE, help="File of queries and their documents, to compare on.")
@click.option("--groups", type=FILE, help="File of sentence pairs with one meaning, to compare on.")
@click.option("--columns", help="Columns of --pairs or --groups to read, such as 1,2.")
@resume_option
@click.argument("settings", nargs=-1, metavar="[section.key=value]...")
def adapt_command(
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

    CORPUS is a text file with one sentence a line, or any other file that `simcse train` reads.
    The first 20,000 rows are trained on at a low learning rate (data.limit, optim.lr). Every 25
    steps the model is evaluated by its loss on held-out rows, and training stops after 4
    evaluations without a better one. Every setting of `simcse train` may be given. Token weights,
    if the model has them, are first counted again on CORPUS, if it has 1,000 rows or more.

    OUTPUT/best/ is the chosen model. If token weights alone rank your labeled --pairs or --groups
    as well as the trained model does, it has those alone. If no evaluation is better than that of
    the start model, or if the model ranks the pairs worse, it is rejected: there is no best/ but a
    rejected/, and the exit code is 6. The held-out loss alone is a weak proof: it always improves
    on the corpus itself.

    \b
    Examples:
      simcse adapt sentences.txt --output runs/mine
      simcse adapt tickets.txt --output runs/tickets --pairs questions_and_answers.tsv
      simcse adapt wiki.txt.gz --model runs/old/best --output runs/new data.limit=5000
    """
    from simcse.cli.train import command_line, read_settings, stored_settings
    from simcse.errors import NumericError
    from simcse.train.adapt import SETTINGS, adapt
    from simcse.train.processes import is_first_process
    from simcse.train.progress import ProgressBar

    if pairs is not None and groups is not None:
        raise click.UsageError("give --pairs or --groups, not both")
    labeled = _read_labeled(pairs, groups, columns)
    stored = stored_settings(output) if resume else {}
    config = read_settings(stored or SETTINGS, None, settings)
    with ProgressBar("adapting") as progress:
        adaptation = adapt(
            model,
            corpus,
            output,
            config,
            pairs=labeled,
            resume=resume,
            command=command_line(),
            callbacks=[progress],
        )
    if is_first_process():
        if adaptation.rejection:
            raise NumericError(f"the adapted model is rejected: {adaptation.rejection}")
        _show(adaptation, output)


def _read_labeled(
    pairs: Path | None, groups: Path | None, columns: str | None
) -> "RetrievalSet | None":
    from simcse.cli.evaluate_options import read_pairs_file
    from simcse.evaluate.retrieval import groups_set, pairs_set

    if pairs is not None:
        return pairs_set(pairs.name, read_pairs_file(pairs, columns))
    return None if groups is None else groups_set(groups.name, read_pairs_file(groups, columns))


def _show(adaptation: "Adaptation", output: Path) -> None:
    from simcse.cli.output import show

    if adaptation.table is not None:
        show(adaptation.table, "table")
    if not adaptation.trained:
        click.echo("token weights alone rank the pairs as well: best/ has only these")
    run = adaptation.training
    before, after = run.start.get("heldout_loss"), run.best.get("heldout_loss")
    if before is not None and after is not None:
        click.echo(f"held-out loss: {before:.4f} before, {after:.4f} at step {run.best_step}")
    click.echo(f"model: {output}/best; report: {output}/report.html")

"""``simcse evaluate retrieval``."""

from pathlib import Path
from typing import Any

import click

from simcse.cli.evaluate.shared import measure, measuring_options, present, read_pairs

KNOWN_SETS = ("captions", "quora")


@click.command()
@click.option(
    "--pairs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Query and its document a row: .tsv, .csv, .jsonl or .parquet.",
)
@click.option(
    "--groups",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Two sentences of one meaning a row; rows that share a sentence are one group.",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    type=click.Choice(KNOWN_SETS),
    help="A known set of groups: captions of one image, duplicate questions.",
)
@click.option("--columns", help="Where the files have them, such as query,document or 1,2.")
@click.option(
    "--limit",
    type=click.IntRange(min=2),
    default=10_000,
    show_default=True,
    help="Rows of each file, the first ones.",
)
@click.option("--at", "k", type=int, default=10, show_default=True, help="k of recall and nDCG.")
@measuring_options
def retrieval(
    pairs: tuple[Path, ...],
    groups: tuple[Path, ...],
    sets: tuple[str, ...],
    columns: str | None,
    limit: int,
    k: int,
    data: Path | None,
    form: str,
    output: Path | None,
    **measuring: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """MRR, recall and nDCG of exact search by cosine, on your own pairs or on groups.

    A query's documents are ranked among all documents of the file, not among a few; a sentence of
    a group asks for the others of its group among all other sentences.

    \b
    Examples:
      simcse evaluate retrieval mini --pairs questions_and_answers.tsv
      simcse evaluate retrieval mini runs/mine/best --set captions --set quora --limit 5000
      simcse evaluate retrieval --groups duplicates.csv --columns question1,question2 --at 5
    """
    from simcse.evaluate.measure import Plan
    from simcse.evaluate.retrieval import groups_set, pairs_set
    from simcse.io.benchmarks import retrieval_file
    from simcse.io.files import sha256_file
    from simcse.report.evaluation import Evaluation
    from simcse.report.versions import versions

    known = {name: retrieval_file(name, data) for name in sets}
    if not (pairs or groups or known):
        raise click.UsageError("nothing to search in: give --pairs, --groups or --set")
    asked = [pairs_set(path.name, read_pairs(path, columns, limit)) for path in pairs]
    asked += [groups_set(path.name, read_pairs(path, columns, limit)) for path in groups]
    asked += [groups_set(name, read_pairs(path, "1,2", limit)) for name, path in known.items()]
    evaluation = Evaluation(
        measure(Plan(retrieval=asked, k=k), **measuring),
        data={path.name: sha256_file(path) for path in (*pairs, *groups, *known.values())},
        versions=versions(),
        options={"limit": limit, "k": k},
    )
    present(evaluation, form=form, output=output)

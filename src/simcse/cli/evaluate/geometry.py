"""``simcse evaluate geometry``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.evaluate.shared import measure, measuring_options, present, read_pairs

if TYPE_CHECKING:
    from simcse.io.benchmarks import StsTask


@click.command()
@click.option(
    "--split",
    type=click.Choice(["test", "dev"]),
    default="test",
    show_default=True,
    help="Of STS-B.",
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path),
    help="Your own positive pairs in place of STS-B: .tsv, .csv, .jsonl or .parquet.",
)
@click.option("--columns", help="Where --pairs has them, such as anchor,positive or 1,2.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Also draw the path of a training, from the log.jsonl of its run folder.",
)
@measuring_options
def geometry(
    split: str,
    pairs: Path | None,
    columns: str | None,
    runs: tuple[Path, ...],
    data: Path | None,
    form: str,
    output: Path | None,
    **measuring: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Alignment, uniformity and the shape of the space: cosines, spectrum, hubness.

    By the paper's protocol: positives are STS-B pairs rated above 4, everything else is over all
    STS-B sentences. With 95 % bootstrap intervals; --output draws the figures.

    \b
    Examples:
      simcse evaluate geometry mini sentence-transformers/all-MiniLM-L6-v2 --output geometry
      simcse evaluate geometry mini --pairs questions.tsv
      simcse evaluate geometry runs/mine/best --run runs/mine --output geometry
    """
    from dataclasses import replace

    from simcse.evaluate.measure import Plan
    from simcse.io.benchmarks import load_sts_task
    from simcse.io.log import read_log
    from simcse.report.evaluation import Evaluation
    from simcse.report.runs import training_path
    from simcse.report.versions import versions

    task = pairs_task(pairs, columns) if pairs else load_sts_task(f"stsb-{split}", folder=data)
    paths = [
        training_path(
            run.name, (row for row in read_log(run / "log.jsonl") if row["event"] == "eval")
        )
        for run in runs
    ]
    rated = {} if pairs else {"stsb": task}
    measured = measure(Plan(sts=rated, geometry=task), **measuring)
    evaluation = Evaluation(
        [replace(model, sts={}) for model in measured],  # their cosines are drawn, no more
        gold={name: each.scores for name, each in rated.items()},
        data={Path(task.path).name: task.sha256},
        versions=versions(),
        options={"split": split, "pairs": str(pairs or "")},
        notes=task.notes,
        paths=paths,
    )
    present(evaluation, form=form, output=output)


def pairs_task(path: Path, columns: str | None) -> "StsTask":
    """Read the user's pairs as pairs rated 5, all of them positives."""
    import numpy as np

    from simcse.io.benchmarks import StsTask
    from simcse.io.files import sha256_file

    first, second = zip(*read_pairs(path, columns), strict=True)
    rating = np.full(len(first), 5.0)
    names = (path.name,) * len(first)
    return StsTask(path.name, names, rating, first, second, path, sha256_file(path))

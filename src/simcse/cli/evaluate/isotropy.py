"""``simcse evaluate isotropy``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.evaluate.shared import data_option, report_option
from simcse.cli.options import load_encoder, loading_options, precision_option
from simcse.cli.output import format_option, show, show_all

if TYPE_CHECKING:
    from simcse.evaluate.isotropy import Isotropy

TEMPERATURE = 0.05


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A run folder: every look of the training that eval.save_all=true kept.",
)
@click.option(
    "--temperature",
    type=float,
    help="Divisor of the cosine; else the run's, for a model 0.05.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "dev"]),
    default="test",
    show_default=True,
    help="Of STS-B, whose sentences are measured.",
)
@data_option
@report_option
@precision_option("fp32")
@loading_options
@format_option
def isotropy(
    models: tuple[str, ...],
    runs: tuple[Path, ...],
    temperature: float | None,
    split: str,
    data: Path | None,
    output: Path | None,
    form: str,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Check the paper's argument for isotropy: each step of its bound, and along a training.

    The contrastive loss's second term (log-mean-exp of the cosines over the temperature) bounds
    the mean cosine; m times that is at most the largest eigenvalue of the matrix of cosines, and
    where none is negative their sum is at least that eigenvalue. So a lower loss should lower the
    largest eigenvalue. The table says of each inequality whether it holds, and for --run whether
    the eigenvalue falls.

    \b
    Examples:
      simcse evaluate isotropy mini
      simcse train --train text.txt --output runs/mine eval.save_all=true eval.every=50
      simcse evaluate isotropy --run runs/mine --output isotropy
    """
    from simcse.io.benchmarks import load_sts_task
    from simcse.report.isotropy import falling_table, isotropy_table

    task = load_sts_task(f"stsb-{split}", folder=data)
    sentences = list(dict.fromkeys((*task.first, *task.second)))
    looked = {run: _looks(run) for run in runs}
    found = {
        name: _measure(name, sentences, temperature or TEMPERATURE, loading)
        for name in models or (() if runs else ("mini",))
    }
    along = {}
    for run, looks in looked.items():
        divisor = temperature or _temperature(run)
        along[run.name] = {
            step: _measure(str(folder), sentences, divisor, loading)
            for step, folder in looks.items()
        }
    steps = {f"{run} step {step}": each for run, s in along.items() for step, each in s.items()}
    tables = [isotropy_table(found | steps), *([falling_table(along)] if along else [])]
    if form == "json":
        show_all(tables)
    else:
        for table in tables:
            show(table, form)
    if output is not None:
        _write(output, found, along)


def _measure(
    name: str, sentences: list[str], temperature: float, loading: dict[str, Any]
) -> "Isotropy":
    from simcse.evaluate.isotropy import measure_isotropy

    encoder = load_encoder(name, **loading)
    vectors = encoder.encode(sentences, truncation="truncate", progress=True)
    return measure_isotropy(vectors, temperature=temperature)


def _looks(run: Path) -> dict[int, Path]:
    """Return the kept models of a run by their steps."""
    from simcse.errors import UsageError
    from simcse.train.run import LOOKS

    found = {int(path.name[5:]): path for path in sorted((run / LOOKS).glob("step-*"))}
    if len(found) < 2:
        raise UsageError(f"{run}/{LOOKS} has no looks: train with eval.save_all=true")
    return found


def _temperature(run: Path) -> float:
    from simcse.io.settings import read_toml
    from simcse.train.run import SETTINGS

    return float(read_toml(run / SETTINGS)["loss"]["temperature"])


def _write(
    output: Path, found: "dict[str, Isotropy]", along: "dict[str, dict[int, Isotropy]]"
) -> None:
    from dataclasses import asdict

    from simcse.io.files import write_text
    from simcse.io.results import write_results
    from simcse.report.isotropy import falling_table, isotropy_report, isotropy_table

    models = {name: asdict(each) for name, each in found.items()}
    runs = {run: {str(step): asdict(each) for step, each in s.items()} for run, s in along.items()}
    write_results(output / "results.json", {"models": models, "runs": runs})
    tables = [isotropy_table(found)] if found else []
    tables += [isotropy_table({f"step {n}": each for n, each in s.items()}) for s in along.values()]
    tables += [falling_table(along)] if along else []
    write_text(output / "report.html", isotropy_report(tables, along))
    click.echo(f"results and report: {output}", err=True)

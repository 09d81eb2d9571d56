"""What the commands of all races share: options, the sentences, the run and its output."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import race
import roofline
from race_report import agreements, race_results, race_table
from simcse.cli.options import Command, count_option, model_option
from simcse.cli.output import format_option, show
from simcse.io import records
from simcse.io.results import write_results
from simcse.quickstart.prose import build_corpus, read_docstrings, read_topics
from simcse.report.versions import versions

OPTIONS = (
    model_option,
    click.option(
        "--input",
        "source",
        type=click.Path(path_type=Path),
        help="File with one sentence per line. Default: the documentation that comes with Python.",
    ),
    count_option(
        "--sentences", "Number of sentences to take from the start of the input.", default=2000
    ),
    count_option("--max-length", "Limit of a sentence in tokens.", default=32, minimum=3),
    count_option("--rounds", "Number of rounds per system.", default=5),
    click.option(
        "--only",
        multiple=True,
        metavar="TEXT",
        help="Text in the name of the systems to run; may be repeated. "
        "Ratios are to the first system.",
    ),
    click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        help="JSON file to write with every round, versions and agreement.",
    ),
    format_option,
)


def race_options(command: Command) -> Command:
    """Add the options of every race."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def run_race(
    title: str,
    systems: Sequence[race.System],
    compare: Callable[[Any, Any], float],
    products: Mapping[str, Any],
    *,
    rounds: int,
    only: tuple[str, ...],
    output: Path | None,
    form: str,
) -> None:
    """Run a race, show it and write it; `roofline` counts the ``products`` of the work."""
    timings = race.race(choose_systems(systems, only), rounds=rounds, log=log)
    agreement = agreements(timings, compare)
    show(race_table(title, timings, agreement), form)
    limit = roofline.roofline(**products, seconds=timings[0].median)
    log(str(limit))
    if output is not None:
        found: dict[str, Any] = {"title": title, "versions": versions(), "rounds": rounds}
        found["roofline"] = dataclasses.asdict(limit)
        write_results(output, {**found, "systems": race_results(timings, agreement)})


def choose_systems(systems: Sequence[race.System], only: Sequence[str]) -> list[race.System]:
    """Return the systems whose name holds one of the texts; all, if there are none."""
    chosen = [one for one in systems if not only or any(text in one.name for text in only)]
    if not chosen:
        names = "; ".join(one.name for one in systems)
        raise click.UsageError(f"--only matches no system; the systems are {names}")
    return chosen


def read_sentences(source: Path | None, count: int) -> list[str]:
    """Return the first sentences of a file, or of the documentation that comes with Python."""
    if source is not None:
        return list(itertools.islice(records.read_texts(source), count))
    corpus = build_corpus(read_topics(), read_docstrings(), limit=count)
    return [sentence.text for sentence in corpus.sentences]


def log(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)

"""``simcse bench``: the same work by us and by named peers, in turns."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.options import Command, model_option
from simcse.cli.output import format_option, show

if TYPE_CHECKING:
    from simcse.bench.race import System

OPTIONS = (
    model_option,
    click.option(
        "--input",
        "source",
        type=click.Path(path_type=Path),
        help="Sentences, one a line; default: prose that every Python carries.",
    ),
    click.option(
        "--sentences",
        type=click.IntRange(1),
        default=2000,
        show_default=True,
        help="The first ones.",
    ),
    click.option(
        "--max-length", type=click.IntRange(3), default=32, show_default=True, help="In tokens."
    ),
    click.option(
        "--rounds", type=click.IntRange(1), default=5, show_default=True, help="Turns of each."
    ),
    click.option(
        "--only",
        multiple=True,
        metavar="TEXT",
        help="Contestants whose name holds this; may be repeated. Ratios are to the first one.",
    ),
    click.option(
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Write every round, versions and agreement as JSON.",
    ),
    format_option,
)


@click.group()
def bench() -> None:
    """Time a piece of work beside its peers, in turns, and print the ratios.

    Every system works in a process of its own. Only ratios mean something: times on a
    shared machine drift. Peers that are not installed are named and left out.

    \b
    Examples:
      simcse bench encode --input sentences.txt
      simcse bench encode --sentences 1 --repeats 100
      simcse bench encode --only "simcse, int8" --only ONNX
      simcse bench train --output bench.json
      simcse bench quality --model start --input triplets.tsv --target 70
    """


def race_options(command: Command) -> Command:
    """Add what every benchmark takes."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@bench.command("encode")
@race_options
@click.option(
    "--repeats", type=click.IntRange(1), default=1, show_default=True, help="Passes a round."
)
def bench_encode(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    repeats: int,
    **race: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Encode sentences: ours, sentence-transformers, OpenVINO, ONNX Runtime.

    Agreement is the lowest cosine to our own embeddings; below 0.999 the work is not the same.
    """
    from simcse.bench import encode

    texts = _sentences(source, sentences)
    systems = encode.systems(model, texts, max_length=max_length, repeats=repeats)
    title = f"Encode {len(texts):,} sentences of at most {max_length} tokens, {repeats} times"
    products = {"sentences": texts, "max_length": max_length, "passes": repeats}
    _race(title, systems, encode.lowest_cosine, {"model": model, **products}, **race)


@bench.command("train")
@race_options
@click.option(
    "--batch", type=click.IntRange(2), default=64, show_default=True, help="Sentences a step."
)
@click.option("--dropout", type=click.FloatRange(0, 1, max_open=True), help="As the model says.")
def bench_train(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    batch: int,
    dropout: float | None,
    **race: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Take steps of unsupervised training: ours, the 2021 code's, sentence-transformers'.

    Agreement is the difference to our loss on the first batch; with `--dropout 0` it is to
    be that of rounding.
    """
    from simcse.bench import train

    texts = _sentences(source, sentences)
    if len(texts) < batch:
        raise click.UsageError(f"one batch takes {batch} sentences, there are {len(texts)}")
    systems = train.systems(model, texts, batch=batch, max_length=max_length, dropout=dropout)
    title = f"One step on {batch} sentences, twice each, of at most {max_length} tokens"
    passes = 2 * 3 * batch / len(texts)  # forward and backward, on its share of the sentences
    products = {"sentences": texts, "max_length": max_length, "passes": passes}
    _race(title, systems, _difference, {"model": model, **products}, **race)


@bench.command("quality")
@race_options
@click.option(
    "--target", type=float, default=70.0, show_default=True, help="STS-B dev, Spearman x100."
)
@click.option(
    "--steps", type=click.IntRange(1), default=10, show_default=True, help="Between two looks."
)
@click.option("--batch", type=click.IntRange(2), default=64, show_default=True, help="Rows a step.")
@click.option("--lr", type=float, default=2e-4, show_default=True, help="Learning rate.")
def bench_quality(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    target: float,
    steps: int,
    batch: int,
    lr: float,
    rounds: int,
    only: tuple[str, ...],
    output: Path | None,
    form: str,
) -> None:
    """Train until STS-B dev reaches a score: ours, the 2021 code's step, sentence-transformers'.

    Contestants see the same rows of --input, text or pairs or triplets, in the same order, at a
    constant learning rate. Looking at STS-B dev is not counted, starting up is. A round is the
    steps between two looks; who is there rests, and after --rounds it is over.
    """
    from simcse.bench import quality
    from simcse.bench.outcome import race_results
    from simcse.bench.race import race
    from simcse.io.records import read_examples
    from simcse.io.results import write_results
    from simcse.report.versions import versions

    rows: Sequence[Sequence[str]]
    if source is None:
        rows = [[text] for text in _sentences(None, sentences)]
    else:
        examples = read_examples(source, limit=sentences)
        rows = [[e.anchor, *([e.positive] if e.positive else ()), *e.negatives] for e in examples]
    if len(rows) < batch:
        raise click.UsageError(f"one batch takes {batch} rows, there are {len(rows)}")
    options: dict[str, Any] = {"batch": batch, "steps": steps, "max_length": max_length, "lr": lr}
    systems = _chosen(quality.systems(model, rows, **options), only)
    timings = race(systems, rounds=rounds, target=target, observe=_tell)
    show(quality.quality_table(timings, target, steps), form)
    if output is not None:
        found = {"title": "Time to quality", "target": target, **options, "versions": versions()}
        results = race_results(timings, [None] * len(timings))
        write_results(output, {**found, "systems": results})


def _difference(ours: float, theirs: float) -> float:
    return theirs - ours


def _race(
    title: str,
    systems: "Sequence[System]",
    compare: Callable[[Any, Any], float],
    products: Mapping[str, Any],
    *,
    rounds: int,
    only: tuple[str, ...],
    output: Path | None,
    form: str,
) -> None:
    """Run a race, show it and write it; ``products`` are the work's, for `roofline`."""
    from simcse.bench.outcome import agreements, race_results, race_table
    from simcse.bench.race import race
    from simcse.bench.roofline import roofline
    from simcse.io.results import write_results
    from simcse.report.versions import versions

    timings = race(_chosen(systems, only), rounds=rounds, observe=_tell)
    agreement = agreements(timings, compare)
    show(race_table(title, timings, agreement), form)
    floor = roofline(**products, seconds=timings[0].median)
    _tell(str(floor))
    if output is not None:
        found: dict[str, Any] = {"title": title, "versions": versions(), "rounds": rounds}
        found["roofline"] = dataclasses.asdict(floor)
        write_results(output, {**found, "systems": race_results(timings, agreement)})


def _chosen(systems: "Sequence[System]", only: Sequence[str]) -> "Sequence[System]":
    """Keep those whose name holds one of the texts; all, if there are none."""
    kept = [one for one in systems if not only or any(text in one.name for text in only)]
    if not kept:
        names = "; ".join(one.name for one in systems)
        raise click.UsageError(f"--only keeps nobody; there are {names}")
    return kept


def _sentences(source: Path | None, count: int) -> list[str]:
    """Return the first sentences of a file, or of the prose that Python carries."""
    if source is not None:
        from simcse.io.records import read_texts

        return list(itertools.islice(read_texts(source), count))
    from simcse.quickstart.prose import build_corpus, read_docstrings, read_topics

    corpus = build_corpus(read_topics(), read_docstrings(), limit=count)
    return [sentence.text for sentence in corpus.sentences]


def _tell(text: str) -> None:
    click.echo(text, err=True)

"""``simcse data doctor`` and what mends or makes training data."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from simcse.data.lint import Diagnosis
    from simcse.io.records import Example

FILE = click.Path(path_type=Path)
NEW_FILE = click.Path(path_type=Path, dir_okay=False)
BAR = 40  # characters of the longest
CHANGED = 2000  # sentences augmented at once

columns_option = click.option(
    "--columns", default="", help="As data.columns in training: names below a header, or numbers."
)
seed_option = click.option("--seed", default=0, show_default=True, help="Of the draw.")
data_option = click.option(
    "--data", "folder", type=FILE, help="Folder of the evaluation sets; else as `data check`."
)


@click.command()
@click.argument("file", type=FILE)
@columns_option
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(file: Path, columns: str, folder: Path | None, as_json: bool) -> None:
    """Examine a training file: what would hurt, where, and what to do about it.

    Finds duplicates and near duplicates, empty, very short and very long rows, damaged encoding,
    markup, other scripts, sentences of the evaluation sets, and triplets whose negatives equal
    or are told by their length from the positives. A million lines take less than a minute.

    \b
    Examples:
      simcse data doctor sentences.txt
      simcse data doctor nli.csv --columns sent0,sent1,hard_neg
    """
    from simcse.data.lint import diagnose

    sentences = list(_evaluation_sentences(folder))
    if not sentences:
        click.echo("note: no evaluation sets here, so leaks cannot be seen", err=True)
    found = diagnose(file, columns=parse_columns(columns), evaluation=sentences)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        _show(found)


@click.command()
@click.argument("file", type=FILE)
@click.option("--output", required=True, type=NEW_FILE, help="File to write, of the same format.")
@click.option("--near", is_flag=True, help="Also rows that share 80 % of their words.")
@click.option("--leaks", is_flag=True, help="Also rows with a sentence of the evaluation sets.")
@columns_option
@data_option
def dedupe(
    file: Path, output: Path, near: bool, leaks: bool, columns: str, folder: Path | None
) -> None:
    """Keep the first of rows with the same words, case and punctuation aside.

    \b
    Example:
      simcse data dedupe sentences.txt --near --leaks --output clean.txt.gz
    """
    from simcse.data import subsets as mend
    from simcse.io.copies import copy_rows

    sentences = list(_evaluation_sentences(folder)) if leaks else []
    if leaks and not sentences:
        raise click.UsageError("--leaks needs the evaluation sets; `simcse data fetch` gets them")
    found = mend.dedupe(_reader(file, columns), near=near, leaks=sentences)
    copy_rows(file, output, found.keep, header=_has_header(columns))
    dropped = ", ".join(f"{count:,} {name}" for name, count in found.dropped.items())
    click.echo(f"{output}: {len(found.keep):,} rows kept; dropped: {dropped}", err=True)


@click.command()
@click.argument("file", type=FILE)
@click.option("--output", required=True, type=FILE, help="Folder for train, dev and test.")
@click.option("--dev", default=0.05, show_default=True, type=click.FloatRange(0, 1), help="Share.")
@click.option("--test", default=0.05, show_default=True, type=click.FloatRange(0, 1), help="Share.")
@columns_option
@seed_option
def split(file: Path, output: Path, dev: float, test: float, columns: str, seed: int) -> None:
    """Split a file into train, dev and test; no anchor stands in two of them.

    \b
    Example:
      simcse data split pairs.tsv --output parts --dev 0.1 --test 0.1
    """
    from simcse.data import subsets as mend
    from simcse.io.copies import copy_rows

    if dev + test >= 1:
        raise click.UsageError(f"--dev and --test leave nothing to train on: {dev} + {test}")
    shares = {"train": 1 - dev - test, "dev": dev, "test": test}
    wanted = {name: share for name, share in shares.items() if share}
    ending = "".join(file.suffixes[-2:]) if file.suffix == ".gz" else file.suffix
    for name, lines in mend.split(_reader(file, columns), wanted, seed=seed).items():
        part = output / f"{name}{ending}"
        copy_rows(file, part, lines, header=_has_header(columns))
        click.echo(f"{part}: {len(lines):,} rows", err=True)


@click.command()
@click.argument("file", type=FILE)
@click.option("--rows", required=True, type=click.IntRange(1), help="How many.")
@click.option("--output", required=True, type=NEW_FILE, help="File to write, of the same format.")
@columns_option
@seed_option
def sample(file: Path, rows: int, output: Path, columns: str, seed: int) -> None:
    """Draw rows at random, in the file's order.

    \b
    Example:
      simcse data sample wiki.txt.gz --rows 10000 --output small.txt
    """
    from simcse.data import subsets as mend
    from simcse.io.copies import copy_rows

    lines = mend.sample(_reader(file, columns), rows, seed=seed)
    copy_rows(file, output, lines, header=_has_header(columns))
    click.echo(f"{output}: {len(lines):,} rows", err=True)


@click.command()
@click.argument("file", type=FILE)
@click.option("--how", required=True, help="crop, delete (words), delete-one, synonym or mlm.")
@click.option("--rate", type=float, help="Share of the words; not for delete-one.")
@click.option("--output", required=True, type=NEW_FILE, help="File to write: .tsv or .tsv.gz.")
@click.option(
    "--wordnet",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of WordNet, for synonym; else WNSEARCHDIR or /usr/share/wordnet.",
)
@click.option("--model", metavar="NAME", help="Masked-language model, for mlm: folder or hub id.")
@columns_option
@seed_option
def augment(
    file: Path,
    how: str,
    rate: float | None,
    output: Path,
    wordnet: Path | None,
    model: str | None,
    columns: str,
    seed: int,
) -> None:
    """Pair each sentence with an augmentation of itself, to train on as positives.

    These are the discrete augmentations that the paper's table 1 compares with dropout alone.
    Words are what whitespace parts; no sentence becomes empty. crop and delete take a share of
    the words away. synonym replaces one word, or with --rate that share, by WordNet's synonyms
    (English; `apt-get install wordnet-base`). mlm replaces words by what a masked-language model
    predicts, such as one that `simcse pretrain` made.

    \b
    Examples:
      simcse data augment wiki.txt.gz --how crop --rate 0.1 --output crop10.tsv.gz
      simcse data augment wiki.txt.gz --how delete-one --output delete-one.tsv
      simcse data augment wiki.txt.gz --how synonym --output synonym.tsv
      simcse data augment wiki.txt.gz --how mlm --rate 0.15 --model runs/mlm/best --output mlm.tsv
    """
    import numpy as np

    from simcse.cli.progress import counting_bar
    from simcse.data.augment import augmentation
    from simcse.data.duplicates import chunks
    from simcse.io.copies import write_pairs

    change = augmentation(how, rate, wordnet=wordnet, model=model)
    random = np.random.default_rng(seed)
    anchors = (row.anchor for row in _reader(file, columns)())
    with counting_bar(how, None) as advance:

        def pairs() -> Iterator[tuple[str, str]]:
            for sentences in chunks(anchors, CHANGED):
                yield from zip(sentences, change(sentences, random), strict=True)
                advance(len(sentences))

        written = write_pairs(output, pairs())
    click.echo(f"{output}: {written:,} pairs", err=True)


def parse_columns(columns: str) -> tuple[str, ...]:
    """Return what --columns names."""
    return tuple(columns.split(",")) if columns else ()


def _has_header(columns: str) -> bool:
    return bool(columns) and not all(name.isdecimal() for name in parse_columns(columns))


def _reader(file: Path, columns: str) -> "Callable[[], Iterator[Example]]":
    from simcse.errors import DataError
    from simcse.io.records import stream_examples
    from simcse.io.files import Source

    if next(stream_examples(Source(file), parse_columns(columns)), None) is None:
        raise DataError(f"{file}: no usable rows")
    return lambda: stream_examples(Source(file), parse_columns(columns))


def _evaluation_sentences(folder: Path | None) -> Iterator[str]:
    """Yield the sentences of the STS and transfer sets that are here."""
    from simcse.io.benchmarks import data_folder
    from simcse.io.files import Source, read_lines
    from simcse.io.benchmarks import read_sts

    home = data_folder(folder)
    for path in sorted((home / "sts").glob("*.tsv")):
        task = read_sts(path)
        yield from task.first
        yield from task.second
    for path in sorted((home / "transfer").glob("*.tsv")):
        for _, line in read_lines(Source(path)):
            yield from (line or "").split("\t")[1:]  # behind the label


def _show(found: "Diagnosis") -> None:
    click.echo(f"{found.path}: {found.rows:,} usable rows\n")
    for finding in found.findings:
        share = finding.count / found.rows
        click.echo(f"{finding.name}: {finding.count:,} ({share:.2%})")
        if finding.examples:
            click.echo(f"  lines: {', '.join(finding.examples)}")
        click.echo(f"  mend:  {finding.mend}")
    if not found.findings:
        click.echo("nothing wrong was found")
    click.echo("\nwords an anchor")
    widest = max(found.lengths.values())
    for first, count in found.lengths.items():
        click.echo(f"  from {first:>3} {count:>9,} {'#' * round(BAR * count / widest)}")
    for title, shares in (("scripts", found.scripts), ("languages (guessed)", found.languages)):
        ordered = sorted(shares.items(), key=lambda item: -item[1])
        click.echo(f"{title}: {', '.join(f'{name} {share:.1%}' for name, share in ordered[:6])}")
    means = ", ".join(f"{name} {words:.1f}" for name, words in found.words.items())
    click.echo(f"mean words: {means}")

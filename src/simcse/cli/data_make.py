"""``simcse data pairs``, ``nli`` and ``augment``: training pairs made from other files."""

from pathlib import Path

import click

from simcse.cli.data import FILE, OUTPUT_FILE, file_argument, seed_option
from simcse.cli.data import data as data
from simcse.cli.options import columns_option, print_note

pairs_output_option = click.option(
    "--output", required=True, type=OUTPUT_FILE, help="File to write, .tsv or .tsv.gz."
)


@data.command("pairs")
@click.argument("corpus", type=FILE)
@click.option(
    "--from",
    "source",
    type=click.Choice(["neighbors"]),
    required=True,
    help="Source of the positives: neighbors are the sentences that follow.",
)
@click.option(
    "--next",
    "distance",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Number of following sentences to draw the positive from.",
)
@pairs_output_option
@columns_option
@seed_option
def pairs_command(
    corpus: Path, source: str, distance: int, output: Path, columns: str, seed: int
) -> None:
    """Pair each sentence of a corpus with the next one, or with one of the next three.

    These are the objectives that the paper's table 2 compares with dropout. The corpus must be in
    document order: neighbors must share clearly more words than random sentences, or nothing is
    written. A blank line ends a document. Memory is constant for a corpus of any length.

    \b
    Examples:
      simcse data pairs articles.txt.gz --from neighbors --output next.tsv.gz
      simcse data pairs articles.txt.gz --from neighbors --next 3 --output next3.tsv.gz
    """
    from simcse.data.neighbors import DocumentOrder, neighbor_pairs
    from simcse.io.files import Source
    from simcse.io.training_files import write_pairs

    order = DocumentOrder()
    pairs = neighbor_pairs(
        Source(corpus), columns=columns, distance=distance, seed=seed, order=order, note=print_note
    )
    written = write_pairs(output, pairs)
    click.echo(f"{output}: {written:,} pairs; {order}", err=True)


@data.command("nli")
@click.argument("labeled", type=FILE)
@click.option(
    "--positives",
    required=True,
    metavar="LABEL",
    help="Label of the hypotheses that become positives: entailment, neutral, contradiction, all.",
)
@click.option(
    "--hard-negatives",
    default="none",
    show_default=True,
    metavar="LABELS",
    help="Labels of the hypotheses that become hard negatives, comma-separated.",
)
@click.option(
    "--every",
    is_flag=True,
    help="Write a row for each positive, with the hard negatives that its premise has.",
)
@pairs_output_option
@columns_option
@seed_option
def nli_command(
    labeled: Path,
    positives: str,
    hard_negatives: str,
    every: bool,
    output: Path,
    columns: str,
    seed: int,
) -> None:
    """Make pairs or triplets from labeled premises and hypotheses.

    LABELED holds a label (entailment, neutral, contradiction), a premise and a hypothesis a row;
    rows that SNLI labels "-" are skipped. Without hard negatives each row with the label asked
    for is a pair. With them rows are matched by premise: each premise that has hypotheses of all
    labels asked for gives one row, with one hypothesis of each label drawn at random. With
    --every each positive gives a row, with one hard negative of each label that its premise has.

    Without --every these are the training sets of the paper's tables 4 and 7.

    \b
    Examples:
      simcse data nli nli.tsv.gz --positives neutral --output neutral.tsv
      simcse data nli nli.tsv.gz --positives entailment --hard-negatives contradiction \\
          --output triplets.tsv.gz
      simcse data nli nli.tsv.gz --positives entailment \\
          --hard-negatives contradiction,neutral --every --output all.tsv.gz
    """
    from simcse.data.nli import nli_rows
    from simcse.io.files import Source
    from simcse.io.records import stream_examples
    from simcse.io.training_files import write_pairs

    hard = () if hard_negatives == "none" else tuple(hard_negatives.split(","))
    examples = stream_examples(Source(labeled), columns, labeled=True, note=print_note)
    found = nli_rows(examples, positives=positives, hard_negatives=hard, every=every, seed=seed)
    widths = sorted({len(row) for row in found.rows})
    content = "pairs" if widths == [2] else f"rows of {' or '.join(map(str, widths))} texts"
    written = write_pairs(output, found.rows, negatives=widths[-1] - 2)
    read = ", ".join(f"{count:,} {label}" for label, count in sorted(found.labels.items()))
    click.echo(f"read: {read}; {found.premises:,} premises", err=True)
    for label, count in sorted(found.lacking.items()):
        rows = f"{count:,} rows" if every else f"left out: {count:,} premises"
        click.echo(f"{rows} without {label}", err=True)
    click.echo(f"{output}: {written:,} {content}", err=True)


@data.command("augment")
@file_argument
@click.option(
    "--how", required=True, help="Augmentation: crop, delete (words), delete-one, synonym or mlm."
)
@click.option("--rate", type=float, help="Fraction of words to change; delete-one takes none.")
@pairs_output_option
@click.option(
    "--wordnet",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with WordNet, for synonym; by default WNSEARCHDIR or /usr/share/wordnet.",
)
@click.option("--model", metavar="NAME", help="Masked-language model for mlm: folder or hub id.")
@columns_option
@seed_option
def augment_command(
    file: Path,
    how: str,
    rate: float | None,
    output: Path,
    wordnet: Path | None,
    model: str | None,
    columns: str,
    seed: int,
) -> None:
    """Pair each sentence with an augmentation of itself, to train on as its positive.

    These are the discrete augmentations that the paper's table 1 compares with dropout. Words are
    separated by whitespace, and no sentence becomes empty. crop and delete remove a fraction of
    the words. synonym replaces one word, or with --rate that fraction, by WordNet's synonyms
    (English; `apt-get install wordnet-base`). mlm replaces words by predictions of a
    masked-language model, such as one that `simcse pretrain` made.

    \b
    Examples:
      simcse data augment wiki.txt.gz --how crop --rate 0.1 --output crop10.tsv.gz
      simcse data augment wiki.txt.gz --how delete-one --output delete-one.tsv
      simcse data augment wiki.txt.gz --how synonym --output synonym.tsv
      simcse data augment wiki.txt.gz --how mlm --rate 0.15 --model runs/mlm/best --output mlm.tsv
    """
    from simcse.cli.progress import counting_bar
    from simcse.data.augment import augmentation, augmented_pairs
    from simcse.data.subsets import RowSource
    from simcse.io.training_files import write_pairs

    augment = augmentation(how, rate, wordnet=wordnet, model=model)
    anchors = (row.anchor for row in RowSource(file, columns, print_note).rows())
    with counting_bar(how, None) as advance:
        written = write_pairs(output, augmented_pairs(anchors, augment, seed=seed, done=advance))
    click.echo(f"{output}: {written:,} pairs", err=True)

"""``simcse data neighbors`` and ``simcse data nli``: training pairs out of other files."""

from pathlib import Path

import click

from simcse.cli.mends import FILE, NEW_FILE, columns_option, parse_columns, seed_option


@click.command()
@click.argument("corpus", type=FILE)
@click.option(
    "--next",
    "ahead",
    default=1,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Draw the positive from so many sentences that follow.",
)
@click.option("--output", required=True, type=NEW_FILE, help="File to write: .tsv or .tsv.gz.")
@click.option("--column", default="text", show_default=True, help="Field of .jsonl and .parquet.")
@seed_option
def neighbors(corpus: Path, ahead: int, output: Path, column: str, seed: int) -> None:
    """Pair each sentence of a corpus with the next one, or one of the next three.

    These are the objectives that the paper's table 2 compares with dropout. The corpus must be in
    document order: sentences that follow each other must share clearly more words than random
    ones, or nothing is written. A blank line ends a document. Any length in constant memory.

    \b
    Examples:
      simcse data neighbors articles.txt.gz --output next.tsv.gz
      simcse data neighbors articles.txt.gz --next 3 --output next3.tsv.gz
    """
    from simcse.data.neighbors import Order, neighbor_pairs
    from simcse.io.copies import write_pairs
    from simcse.io.files import Source

    order = Order()
    pairs = neighbor_pairs(Source(corpus), column=column, ahead=ahead, seed=seed, order=order)
    written = write_pairs(output, pairs)
    click.echo(f"{output}: {written:,} pairs; {order}", err=True)


@click.command()
@click.argument("labeled", type=FILE)
@click.option(
    "--positives",
    required=True,
    metavar="LABEL",
    help="entailment, neutral, contradiction or all: the hypotheses that become positives.",
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
    help="A row for each positive, with the hard negatives that its premise has.",
)
@click.option("--output", required=True, type=NEW_FILE, help="File to write: .tsv or .tsv.gz.")
@columns_option
@seed_option
def nli(
    labeled: Path,
    positives: str,
    hard_negatives: str,
    every: bool,
    output: Path,
    columns: str,
    seed: int,
) -> None:
    """Make pairs or triplets out of labeled premises and hypotheses.

    LABELED holds a label (entailment, neutral, contradiction), a premise and a hypothesis a row;
    rows that SNLI labels "-" are passed over. Without hard negatives each row with the label
    asked for is a pair. With them rows are matched by premise: each premise that has hypotheses
    of all labels asked for gives one row, and of several hypotheses one is drawn. With --every
    each positive gives a row, with one hard negative of each label that its premise has.

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
    from simcse.io.copies import write_pairs
    from simcse.io.records import stream_labeled
    from simcse.io.files import Source

    found = nli_rows(
        stream_labeled(Source(labeled), parse_columns(columns)),
        positives=positives,
        hard_negatives=() if hard_negatives == "none" else hard_negatives.split(","),
        every=every,
        seed=seed,
    )
    sizes = sorted({len(row) for row in found.rows})
    kind = "pairs" if sizes == [2] else f"rows of {' or '.join(map(str, sizes))} texts"
    written = write_pairs(output, found.rows)
    read = ", ".join(f"{count:,} {label}" for label, count in sorted(found.labels.items()))
    click.echo(f"read: {read}; {found.premises:,} premises", err=True)
    for label, count in sorted(found.lacking.items()):
        told = f"{count:,} rows" if every else f"left out: {count:,} premises"
        click.echo(f"{told} without {label}", err=True)
    click.echo(f"{output}: {written:,} {kind}", err=True)

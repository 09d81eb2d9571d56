"""Options that several commands share, each defined once."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from simcse.model.encoder import SentenceEncoder

Command = TypeVar("Command", bound=Callable[..., Any])
AGREEMENT_SENTENCES = 100  # on which int8 is compared with fp32
POOLINGS = ("cls", "mean", "mean_last_two", "mean_first_last", "mean_embedding_last")

model_option = click.option(
    "--model",
    default="mini",
    metavar="NAME",
    help="Model folder, bundled name, name in SIMCSE_MODELS or hub id.",
)
run_folder_option = click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Run folder to write."
)
resume_option = click.option(
    "--resume", is_flag=True, help="Continue from the last checkpoint of the run folder."
)
columns_option = click.option(
    "--columns",
    default="",
    metavar="COLUMNS",
    help="Columns by name or position from 1, in order (question,answer) or as role=column.",
)


def print_note(text: str) -> None:
    """Print a line about the input, such as which columns were found, to stderr."""
    click.echo(text, err=True)


bad_lines_option = click.option(
    "--bad-lines",
    type=click.Choice(["error", "skip"]),
    default="error",
    help="Treatment of lines that are not UTF-8 or otherwise unusable: stop, or skip and count.",
)
truncation_option = click.option(
    "--truncation",
    type=click.Choice(["error", "warn", "truncate"]),
    default="warn",
    help="Treatment of sentences over the length limit: stop, truncate and warn, or truncate.",
)
dimensions_option = click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="Length of the embeddings, if the model was trained for it (loss.matryoshka).",
)


def loading_options(command: Command) -> Command:
    """Add the options that say how a model is loaded."""
    for option in (
        click.option(
            "--device", metavar="NAME", help="Device, such as cpu, cuda or cuda:1. Default: best."
        ),
        click.option(
            "--max-length", type=int, metavar="TOKENS", help="Limit of a sentence in tokens."
        ),
        click.option(
            "--pooling",
            type=click.Choice(POOLINGS),
            help="Pooling of a plain Hugging Face folder, which does not record one.",
        ),
    ):
        command = option(command)
    return command


def precision_option(default: str) -> Callable[[Command], Command]:
    """Add --precision with the command's own default."""
    return click.option(
        "--precision",
        type=click.Choice(["auto", "fp32", "bf16", "int8"]),
        default=default,
        help="Number format; auto chooses fp32 or bf16 by the processor, never int8.",
    )


def count_option(
    name: str, text: str, *, default: int | None = None, minimum: int = 1
) -> Callable[[Command], Command]:
    """Add an option for a whole number with this help text."""
    return click.option(name, type=click.IntRange(minimum), default=default, help=text)


def seed_option(purpose: str) -> Callable[[Command], Command]:
    """Add --seed; its help is a random seed for this purpose."""
    return click.option(
        "--seed", type=click.IntRange(0, 2**32 - 1), default=0, help=f"Random seed for {purpose}."
    )


def load_encoder(
    name: str,
    *,
    pooling: str | None = None,
    max_length: int | None = None,
    device: str | None = None,
    precision: str = "auto",
    head: str | None = None,
) -> "SentenceEncoder":
    """Load a model by the loading options."""
    from simcse.model.encoder import SentenceEncoder

    changes = {"pooling": pooling, "max_length": max_length, "head": head}
    encoder = SentenceEncoder.load(
        name,
        device=device,
        precision="fp32" if precision == "int8" else precision,  # type: ignore[arg-type]  # click.Choice allows no other
        changes={key: value for key, value in changes.items() if value is not None},
    )
    if precision == "int8":
        _quantize(encoder)
    return encoder


def read_corpus(corpus: str, columns: str, limit: int | None) -> tuple[list[str], dict[str, Any]]:
    """Read a corpus, before a model is loaded; return its sentences and its provenance."""
    from simcse.io.files import sha256_file
    from simcse.io.records import read_texts

    texts = read_texts(corpus, columns=columns, note=print_note)
    sentences = list(itertools.islice(texts, limit))
    provenance: dict[str, Any] = {"corpus": Path(corpus).name, "sentences": len(sentences)}
    if corpus != "-":
        provenance["sha256"] = sha256_file(Path(corpus))
    return sentences, provenance


def _quantize(encoder: "SentenceEncoder") -> None:
    """Convert an encoder from fp32 to int8, and print how far the embeddings agree."""
    from simcse.cli.agreement import describe_agreement, sample_sentences
    from simcse.model.export import compare_encoders
    from simcse.text import Tokenizer

    texts, own = sample_sentences(AGREEMENT_SENTENCES), encoder.tokenizer
    # A tokenizer of its own, so that the truncations are not counted as the user's.
    rows = Tokenizer(own.hf_tokenizer, max_length=own.max_length).ids(texts)
    before = encoder.encode_ids(rows)
    encoder.set_precision("int8")
    found = compare_encoders(lambda _: before, lambda _: encoder.encode_ids(rows), texts)
    click.echo(f"int8 {describe_agreement(found)}", err=True)

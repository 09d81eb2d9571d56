"""Options that several commands share, each defined once."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from simcse.model.encoder import SentenceEncoder

Command = TypeVar("Command", bound=Callable[..., Any])
COMPARED = 100  # sentences, where int8 says by what it differs
POOLINGS = ("cls", "mean", "mean_last_two", "mean_first_last", "mean_embedding_last")

model_option = click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    help="A model folder, a bundled name, a name in SIMCSE_MODELS or a hub id.",
)

run_folder_option = click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="The run folder."
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on from the run folder's last checkpoint."
)


def loading_options(command: Command) -> Command:
    """Add the options that say how a model is loaded."""
    for option in (
        click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1 ...; default: the best."),
        click.option("--max-length", type=int, metavar="TOKENS", help="Limit of a sentence."),
        click.option(
            "--pooling",
            type=click.Choice(POOLINGS),
            help="Pooling of a plain Hugging Face folder, which does not say it.",
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
        show_default=True,
        help="Number format; auto asks the processor, and never takes int8.",
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


dimensions_option = click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    help="Keep so many, where the model was trained for it (loss.matryoshka).",
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
    """Load a model as the loading options say."""
    from simcse.model.encoder import SentenceEncoder

    asked = {"pooling": pooling, "max_length": max_length, "head": head}
    changes = {key: value for key, value in asked.items() if value is not None}
    encoder = SentenceEncoder.load(
        name,
        device=device,
        precision="fp32" if precision == "int8" else precision,  # type: ignore[arg-type]  # click.Choice allows no other
        changes=changes,
    )
    if precision == "int8":
        _quantize(encoder)
    return encoder


def read_corpus(corpus: str, columns: str, limit: int | None) -> tuple[list[str], dict[str, Any]]:
    """Read the corpus, before a model is loaded, and say which it was."""
    from simcse.io.files import sha256_file
    from simcse.io.records import read_texts

    texts = read_texts(corpus, columns=columns, note=print_note)
    sentences = list(itertools.islice(texts, limit))
    told: dict[str, Any] = {"corpus": Path(corpus).name, "sentences": len(sentences)}
    if corpus != "-":
        told["sha256"] = sha256_file(Path(corpus))
    return sentences, told


def _quantize(encoder: "SentenceEncoder") -> None:
    """Go from fp32 to int8, and say what that costs."""
    from simcse.cli.agreement import prose, told
    from simcse.model.export import compare
    from simcse.text import Tokenizer

    texts, own = prose(COMPARED), encoder.tokenizer
    rows = Tokenizer(own.hf_tokenizer, max_length=own.max_length).ids(
        texts
    )  # which counts for nobody
    before = encoder.encode_ids(rows)
    encoder.set_precision("int8")
    found = compare(lambda _: before, lambda _: encoder.encode_ids(rows), texts)
    click.echo(f"int8 {told(found)}", err=True)

"""``simcse export``."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from simcse.cli.agreement import describe_agreement, sample_sentences
from simcse.cli.options import columns_option, load_encoder, loading_options, print_note

if TYPE_CHECKING:
    from simcse.evaluate import Encode
    from simcse.model.encoder import SentenceEncoder

COMPARED = 1000  # sentences


@click.command("export")
@click.argument("model", metavar="MODEL")
@click.option(
    "--to",
    required=True,
    type=click.Choice(["sentence-transformers", "transformers", "onnx", "openvino"]),
    help="Format to write.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="Number format of the stored weights; onnx has no fp16, and only onnx has int8.",
)
@click.option(
    "--sentences",
    metavar="FILE",
    help="File of sentences to compare on; by default Python's own documentation.",
)
@columns_option
@click.option(
    "--min-cosine",
    type=click.FloatRange(0, 1),
    help="Lowest cosine allowed; default 0.9999, for fp16 0.999, for int8 0.95.",
)
@click.option(
    "--head",
    type=click.Choice(["none", "always"]),
    help="Projection head of a checkpoint of the original SimCSE code, which does not store it.",
)
@loading_options
def export_command(
    model: str,
    to: str,
    output: Path,
    dtype: str,
    sentences: str | None,
    columns: str,
    min_cosine: float | None,
    head: str | None,
    **loading: Any,  # noqa: ANN401 - passed on by name
) -> None:
    """Write a model for another tool, and only if that tool gives the same embeddings.

    A sentence-transformers folder and the ONNX and OpenVINO graphs hold pooling, projection head,
    post-processing and normalization: one call gives embeddings. A transformers folder holds
    backbone and head. The README in each has the code to use it. The written model is loaded by its
    own tool and compared with the original on 1,000 sentences, and on STS-B dev if that is there.
    If it does not reproduce the original nothing is written: exit code 4.

    A sentence-transformers or transformers folder as MODEL is first read by its own tool, too, and
    compared in the same way.

    \b
    Examples:
      simcse export mini --to onnx --output mini-onnx
      simcse export mini --to onnx --dtype int8 --output mini-int8 --sentences mine.txt
      simcse export runs/mine/best --to sentence-transformers --dtype fp16 --output for-others
      simcse export old-checkpoint --pooling cls --head always --to transformers --output new
    """
    from simcse.errors import UsageError
    from simcse.io.records import read_texts
    from simcse.model.export import export_model

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is not empty; give another --output or remove it")
    if sentences is None:
        texts = sample_sentences(COMPARED)
    else:
        texts = list(
            itertools.islice(read_texts(sentences, columns=columns, note=print_note), COMPARED)
        )
    encoder = load_encoder(model, precision="fp32", head=head, **loading)
    _check_reading(encoder, model, texts)
    done = export_model(
        encoder,
        output,
        to,  # type: ignore[arg-type]  # click.Choice allows no other
        sentences=texts,
        dtype=dtype,  # type: ignore[arg-type]
        min_cosine=min_cosine,
    )
    click.echo(f"{output} {describe_agreement(done.agreement)}")
    _compare_dev(encoder, done.encode)


def _check_reading(encoder: "SentenceEncoder", model: str, texts: list[str]) -> None:
    """Compare our embeddings of a foreign folder with those of its own tool."""
    from simcse.errors import ArtifactError
    from simcse.model.export import MIN_COSINES, compare_encoders, foreign_encode

    foreign = foreign_encode(encoder, model)
    if foreign is None:
        return
    found = compare_encoders(
        foreign, lambda sentences: encoder.encode(sentences, truncation="truncate"), texts
    )
    message = f"{model}, as read here, {describe_agreement(found)}"
    if not found.reaches(MIN_COSINES["fp32"]):
        raise ArtifactError(f"{message}; expected at least {MIN_COSINES['fp32']}")
    click.echo(message, err=True)


def _compare_dev(encoder: "SentenceEncoder", exported: "Encode") -> None:
    from simcse.errors import DataError
    from simcse.evaluate.sts import evaluate_sts
    from simcse.io.benchmarks import load_sts_task

    try:
        task = load_sts_task("stsb-dev")
    except DataError:
        click.echo("note: STS-B dev was not found, so it was not compared on it", err=True)
        return
    before, after = (evaluate_sts(encode, task).spearman() for encode in (encoder.encode, exported))
    if before is not None and after is not None:
        click.echo(f"STS-B dev: {before:.2f}, exported {after:.2f} ({after - before:+.2f})")

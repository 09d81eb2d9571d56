"""Encoding speed: systems that turn the same sentences into the same embeddings.

python benchmarks/encode.py --model mini --input sentences.txt
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from exported import Work, repeated
from race import System
from race_options import race_options, read_sentences, run_race
from simcse.cli.main import main
from simcse.cli.options import count_option
from simcse.errors import UsageError
from simcse.evaluate.vectors import cosine
from simcse.model.encoder import SentenceEncoder
from simcse.model.huggingface import locate
from simcse.model.precision import EncodingPrecision

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # of the peers, as simcse chooses


@click.command()
@race_options
@count_option("--repeats", "Number of passes over the sentences per round.", default=1)
def encode(
    model: str,
    source: Path | None,
    sentences: int,
    max_length: int,
    repeats: int,
    **options: Any,  # noqa: ANN401 - of the race
) -> None:
    """Compare the speed of encoding: simcse, sentence-transformers, OpenVINO, ONNX Runtime.

    Every system works in a process of its own. Only ratios are comparable, because times on a
    shared machine drift. Systems that are not installed are named and left out. Agreement is the
    lowest cosine to the embeddings of the first system; below 0.999 the work is not the same.

    \b
    Examples:
      python benchmarks/encode.py --input sentences.txt
      python benchmarks/encode.py --sentences 1 --repeats 100
      python benchmarks/encode.py --only "simcse, int8" --only ONNX
    """
    texts = read_sentences(source, sentences)
    entered = systems(model, texts, max_length=max_length, repeats=repeats)
    title = f"Encode {len(texts):,} sentences of at most {max_length} tokens, {repeats} times"
    products = {
        "model": model,
        "sentences": texts,
        "max_length": max_length,
        "passes": repeats,
    }
    run_race(title, entered, lowest_cosine, products, **options)


def systems(model: str, sentences: Sequence[str], *, max_length: int, repeats: int) -> list[System]:
    """List the systems: first simcse in its precisions, then its peers."""
    task = {
        "model": model,
        "sentences": list(sentences),
        "max_length": max_length,
        "repeats": repeats,
    }
    named: list[tuple[str, str, dict[str, object]]] = [
        ("simcse, auto", "ours", {"precision": "auto"}),
        ("simcse, fp32", "ours", {"precision": "fp32"}),
        ("simcse, int8", "ours", {"precision": "int8"}),
        ("sentence-transformers, default", "sentence_transformers", {}),
        (
            "sentence-transformers, bf16, batch 128",
            "sentence_transformers",
            {"dtype": "bfloat16", "batch": 128},
        ),
    ]
    runtimes = [
        ("OpenVINO, bf16", "openvino", "bf16"),
        ("OpenVINO, int8", "openvino", "int8"),
        ("ONNX Runtime, fp32", "onnx", "fp32"),
        ("ONNX Runtime, int8", "onnx", "int8"),
    ]
    return [
        *(System(name, f"encode:{function}", {**task, **more}) for name, function, more in named),
        *(
            System(
                name,
                "exported:encode",
                {**task, "runtime": runtime, "dtype": dtype},
            )
            for name, runtime, dtype in runtimes
        ),
    ]


def ours(
    model: str,
    sentences: Sequence[str],
    *,
    max_length: int,
    repeats: int,
    precision: EncodingPrecision,
) -> Work:
    """Encode with `SentenceEncoder`."""
    encoder = SentenceEncoder.load(model, precision=precision, changes={"max_length": max_length})
    return repeated(lambda: encoder.encode(sentences, truncation="truncate"), repeats)


def sentence_transformers(
    model: str,
    sentences: Sequence[str],
    *,
    max_length: int,
    repeats: int,
    dtype: str = "float32",
    batch: int = 32,
) -> Work:
    """Encode with sentence-transformers; its defaults are fp32 and 32 sentences a batch."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(
        str(locate(model)), device=DEVICE, model_kwargs={"dtype": getattr(torch, dtype)}
    )
    encoder.max_seq_length = max_length

    def encode_all() -> np.ndarray:
        embedded = encoder.encode(list(sentences), batch_size=batch, convert_to_tensor=True)
        rows: np.ndarray = embedded.float().cpu().numpy()
        return rows

    return repeated(encode_all, repeats)


def mean_encoder(model: str, max_length: int) -> SentenceEncoder:
    """Load a model for a peer whose embedding is the mean of the last layer, in fp32.

    Raises:
        UsageError: the model embeds by another pooling, token weights, a head or post-processing.
    """
    encoder = SentenceEncoder.load(model, precision="fp32", changes={"max_length": max_length})
    if encoder.settings.pooling != "mean" or any(
        (encoder.token_weights, encoder.head, encoder.postprocess)
    ):
        raise UsageError(
            f"{model}: expected mean pooling without a head, token weights or postprocessing, "
            "because the peers of this benchmark have no other"
        )
    return encoder


def lowest_cosine(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Lowest cosine between the embeddings that two systems gave one sentence."""
    return float(cosine(first, second).min())


if __name__ == "__main__":
    main(command=encode)

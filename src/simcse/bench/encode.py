"""Encoding: systems that turn the same sentences into the same embeddings."""

from collections.abc import Sequence

import numpy as np
import torch

from simcse.bench.exported import Work, repeated
from simcse.bench.race import System
from simcse.errors import UsageError
from simcse.evaluate.vectors import cosine
from simcse.model.encoder import SentenceEncoder
from simcse.model.huggingface import locate
from simcse.model.precision import EncodingPrecision


def systems(model: str, sentences: Sequence[str], *, max_length: int, repeats: int) -> list[System]:
    """Name who encodes: first us, at the precision we choose here and in fp32, then peers."""
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
        *(System(name, f"{__name__}:{how}", {**task, **more}) for name, how, more in named),
        *(
            System(
                name,
                "simcse.bench.exported:encode",
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
        str(locate(model)), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)}
    )
    encoder.max_seq_length = max_length

    def encode() -> np.ndarray:
        embedded = encoder.encode(list(sentences), batch_size=batch, convert_to_tensor=True)
        rows: np.ndarray = embedded.float().numpy()
        return rows

    return repeated(encode, repeats)


def mean_encoder(model: str, max_length: int) -> SentenceEncoder:
    """Load a model for a peer whose embedding is the mean of the last layer, in fp32.

    Raises:
        UsageError: the model embeds by another pooling, token weights, a head or post-processing.
    """
    encoder = SentenceEncoder.load(model, precision="fp32", changes={"max_length": max_length})
    if encoder.settings.pooling != "mean" or any(
        (encoder.token_weights, encoder.head, encoder.postprocess)
    ):
        raise UsageError(f"the peers of this benchmark pool by the mean alone, {model} does not")
    return encoder


def lowest_cosine(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Lowest cosine between the embeddings that two systems gave one sentence."""
    return float(cosine(first, second).min())

"""Encoding: contestants that turn the same sentences into the same embeddings."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from simcse.bench.race import Contestant
from simcse.errors import UsageError
from simcse.evaluate.vectors import cosine
from simcse.model.encoder import SentenceEncoder
from simcse.model.names import locate
from simcse.model.precision import Precision

COMPARED = 100  # sentences whose embeddings are handed back
Work = Callable[[], list[list[float]]]


def contestants(
    model: str, sentences: Sequence[str], *, max_length: int, repeats: int
) -> list[Contestant]:
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
        ("sentence-transformers, default", "sentence_transformers", {}),
        (
            "sentence-transformers, bf16, batch 128",
            "sentence_transformers",
            {"dtype": "bfloat16", "batch": 128},
        ),
        ("OpenVINO, default", "openvino", {}),
    ]
    return [Contestant(name, f"{__name__}:{how}", {**task, **more}) for name, how, more in named]


def ours(
    model: str, sentences: Sequence[str], *, max_length: int, repeats: int, precision: Precision
) -> Work:
    """Encode with `SentenceEncoder`."""
    encoder = SentenceEncoder.load(model, precision=precision, changes={"max_length": max_length})
    return _repeated(lambda: encoder.encode(sentences, truncation="cut"), repeats)


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

    return _repeated(encode, repeats)


def openvino(
    model: str, sentences: Sequence[str], *, max_length: int, repeats: int, batch: int = 64
) -> Work:
    """Encode with OpenVINO at its default precision for this processor, longest sentences first.

    Raises:
        UsageError: the model does not pool by the mean of its last layer.
    """
    import openvino

    encoder = mean_encoder(model, max_length)
    example = {
        "input_ids": torch.ones(2, 8, dtype=torch.int64),
        "attention_mask": torch.ones(2, 8, dtype=torch.int64),
    }
    compiled = openvino.compile_model(
        openvino.convert_model(encoder.backbone.model, example_input=example), "CPU"
    )

    def encode() -> np.ndarray:
        rows = encoder.tokenizer.ids(sentences)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        vectors = np.empty((len(rows), encoder.dimensions), np.float32)
        for start in range(0, len(rows), batch):
            picked = order[start : start + batch]
            ids = np.zeros((len(picked), len(rows[picked[0]])), np.int64)
            for line, i in zip(ids, picked, strict=True):
                line[: len(rows[i])] = rows[i]
            mask = (ids != 0).astype(np.int64)
            hidden = compiled({"input_ids": ids, "attention_mask": mask})[0]  # (B, L, D)
            vectors[picked] = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return vectors

    return _repeated(encode, repeats)


def mean_encoder(model: str, max_length: int) -> SentenceEncoder:
    """Load a model for a peer whose embedding is the mean of the last layer, in fp32.

    Raises:
        UsageError: the model embeds by another pooling, a head or post-processing.
    """
    encoder = SentenceEncoder.load(model, precision="fp32", changes={"max_length": max_length})
    if encoder.settings.pooling != "mean" or encoder.head or encoder.postprocess:
        raise UsageError(f"the peers of this benchmark pool by the mean alone, {model} does not")
    return encoder


def lowest_cosine(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Lowest cosine between the embeddings that two contestants gave one sentence."""
    return float(cosine(first, second).min())


def _repeated(encode: Callable[[], np.ndarray], repeats: int) -> Work:
    def work() -> list[list[float]]:
        for _ in range(repeats - 1):
            encode()
        rows: list[list[float]] = encode()[:COMPARED].tolist()
        return rows

    return work

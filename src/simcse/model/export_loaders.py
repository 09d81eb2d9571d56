"""The use of an exported folder without this package: one function a format.

The README of an export shows the function that it was verified with. Importing this loads neither
torch nor a runtime.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

BATCH = 32  # sentences that an exported model gets at once


def in_batches(
    encode: Callable[[Sequence[str]], np.ndarray], batch: int = BATCH
) -> Callable[[Sequence[str]], np.ndarray]:
    """Sort an encoder's sentences by length, the longest first, and pass ``batch`` at a time."""

    def encode_all(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        rows = [
            encode([texts[i] for i in order[start : start + batch]])
            for start in range(0, len(order), batch)
        ]
        return np.concatenate(rows)[np.argsort(order)]

    return encode_all


def load_sentence_transformers(folder: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from sentences to embeddings (N, D)."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu")

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = model.encode(list(texts), show_progress_bar=False)
        return vectors

    return encode


def load_transformers(
    folder: str,
    *,
    layers: tuple[int, ...],
    pooling: str,
    max_length: int,
    normalize: bool,
    weighted: bool,
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from sentences to embeddings (N, D)."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    weights = load_file(f"{folder}/token_weights.safetensors")["weight"] if weighted else None

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> np.ndarray:
        batch = tokenizer(
            list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        output = model(**batch, output_hidden_states=True)
        states = (*output.hidden_states[:-1], output.last_hidden_state)
        hidden = torch.stack([states[layer] for layer in layers]).mean(0)
        if pooling == "pooler":  # the projection head, stored as BERT's pooler
            vectors = output.pooler_output
        elif pooling == "cls":
            vectors = hidden[:, 0]
        else:
            mask = batch["attention_mask"]
            if weights is not None:
                mask = mask * weights[batch["input_ids"]]
            vectors = (hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return (torch.nn.functional.normalize(vectors) if normalize else vectors).numpy()

    return encode


def load_tokenizer(folder: str) -> Callable[[Sequence[str]], dict[str, np.ndarray]]:
    """Return a function from sentences to the inputs of a graph."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")  # it truncates and pads

    def tokenize(texts: Sequence[str]) -> dict[str, np.ndarray]:
        rows = tokenizer.encode_batch(list(texts))
        return {
            "input_ids": np.array([row.ids for row in rows]),
            "attention_mask": np.array([row.attention_mask for row in rows]),
        }

    return tokenize


def load_onnx(folder: str) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from sentences to embeddings (N, D)."""
    import onnxruntime

    tokenize = load_tokenizer(folder)
    session = onnxruntime.InferenceSession(f"{folder}/model.onnx")

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = session.run(None, tokenize(texts))[0]
        return vectors

    return encode


def load_openvino(
    folder: str, core: "openvino.Core | None" = None
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from sentences to embeddings (N, D).

    Give all models of a program one ``core``. Of two, the one made first must not end first: it
    would leave OpenVINO's signal stack unmapped, and the next signal, Ctrl-C too, would be a crash.
    """
    import openvino

    tokenize = load_tokenizer(folder)
    # By default OpenVINO computes in bf16 where the processor can: faster, less exact.
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    model = (core or openvino.Core()).compile_model(f"{folder}/model.xml", "CPU", options)

    def encode(texts: Sequence[str]) -> np.ndarray:
        vectors: np.ndarray = model(tokenize(texts))[0]
        return vectors

    return encode

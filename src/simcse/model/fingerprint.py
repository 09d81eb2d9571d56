"""One hash of all that decides what an embedding is."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator

import torch
from torch import Tensor

from simcse.io.fingerprint import ModelFingerprint
from simcse.model.encoder import SentenceEncoder


def fingerprint_sha256(encoder: SentenceEncoder) -> str:
    """Return the SHA-256 of an encoder's weights, pooling, head, truncation and tokenizer.

    Weights enter rounded to bf16, so a model has one fingerprint whether it runs in fp32 or in
    bf16, on a machine that prefers the one or the other. A head that applies in training only,
    and buffers that are computed from the configuration, do not count.

    Example:
        >>> len(fingerprint_sha256(SentenceEncoder.load("mini")))
        64
    """
    digest = hashlib.sha256()
    for name, tensor in _weights(encoder):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        rounded = tensor.detach().cpu().to(torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.int16).numpy().tobytes())
    digest.update(json.dumps(_settings(encoder), sort_keys=True).encode())
    digest.update(tokenizer_state(encoder))
    return digest.hexdigest()


def model_fingerprint(encoder: SentenceEncoder, name: str) -> ModelFingerprint:
    """Return the fingerprint of an encoder that was loaded as ``name``."""
    return ModelFingerprint(
        name, fingerprint_sha256(encoder), encoder.dimensions, _settings(encoder)
    )


def _settings(encoder: SentenceEncoder) -> dict[str, object]:
    settings = dataclasses.asdict(encoder.settings)
    del settings["matryoshka"]  # what embeddings may be cut to, not what they are
    return {**settings, "head": "always" if encoder.settings.head == "always" else "none"}


def _weights(encoder: SentenceEncoder) -> Iterator[tuple[str, Tensor]]:
    """Yield what an embedding is computed with, by name, in the order of the names."""
    skipped = ("mlm_head.", *(() if encoder.settings.head == "always" else ("head.",)))
    for name, tensor in sorted(encoder.named_parameters()):
        if not name.startswith(skipped):
            yield name, tensor


def tokenizer_state(encoder: SentenceEncoder) -> bytes:
    """Return what tells two tokenizers apart: their state, without padding and truncation.

    Those two are set anew by every call, so they say nothing of the model.
    """
    inner = encoder.tokenizer.hf_tokenizer
    backend = getattr(inner, "backend_tokenizer", None)
    if backend is None:
        return json.dumps([type(inner).__name__, inner.get_vocab()], sort_keys=True).encode()
    state = json.loads(backend.to_str())
    return json.dumps({**state, "padding": None, "truncation": None}, sort_keys=True).encode()

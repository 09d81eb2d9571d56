"""One hash of everything that an embedding depends on."""

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
    del settings["matryoshka"]  # it changes no embedding
    return {**settings, "head": "always" if encoder.settings.head == "always" else "none"}


def _weights(encoder: SentenceEncoder) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights that an embedding depends on, in the order of their names."""
    skipped = ("mlm_head.", *(() if encoder.settings.head == "always" else ("head.",)))
    for name, tensor in sorted(encoder.named_parameters()):
        if not name.startswith(skipped):
            yield name, tensor


def tokenizer_state(encoder: SentenceEncoder) -> bytes:
    """Return the state that distinguishes tokenizers: all but padding and truncation.

    Every call sets those two anew, so they say nothing of the model.
    """
    tokenizer = encoder.tokenizer.hf_tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        state = [type(tokenizer).__name__, tokenizer.get_vocab()]
        return json.dumps(state, sort_keys=True).encode()
    state = json.loads(backend.to_str())
    return json.dumps({**state, "padding": None, "truncation": None}, sort_keys=True).encode()

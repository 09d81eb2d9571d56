"""What tells two encoders apart that may give other vectors."""

import hashlib
import json
from dataclasses import asdict

import torch

from simcse.model.encoder import SentenceEncoder


def fingerprint(encoder: SentenceEncoder) -> str:
    """Return a SHA-256 over weights, tokenizer, settings and number format, in hexadecimal.

    The same model loaded from another folder has the same one; a change of any weight, of the
    pooling, of the length limit or of the precision gives another.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(asdict(encoder.settings), sort_keys=True).encode())
    digest.update(encoder.tokenizer.inner.backend_tokenizer.to_str().encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()

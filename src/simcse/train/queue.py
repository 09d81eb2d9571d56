"""Embeddings of earlier batches as further negatives: ESimCSE's momentum queue."""

import copy
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simcse.model.encoder import SentenceEncoder
from simcse.train.batches import Pass


class MomentumQueue(nn.Module):
    """What a slowly following copy of the encoder made of the latest anchors, without dropout.

    Wu et al. 2022, ESimCSE, after He et al. 2020, MoCo. The copy's weights are part of the
    optimizer's state; who takes a step moves them (`Optimizer.follow`).

    Attributes:
        encoder: the copy.
        size: the most that is kept.
        embeddings: (Q, D), the oldest first; nothing before the first step.
        keys: (Q,) int64, of their texts (see `text_keys`).
    """

    def __init__(self, encoder: SentenceEncoder, size: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Forget all embeddings."""
        device = self.encoder.device
        self.embeddings = torch.empty(0, self.encoder.dimensions, device=device)
        self.keys = torch.empty(0, dtype=torch.int64, device=device)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], *, micro_batch_tokens: int) -> Tensor:
        """Embed anchors as they will stand in the queue: (n, D)."""
        if not texts:
            return self.embeddings[:0]
        batch = self.encoder.tokenizer(texts).to(self.encoder.device)
        way = Pass(("anchors",), self.encoder, dropout=False)
        return batch.unsort(
            torch.cat([way.embed(part) for part in batch.split(micro_batch_tokens)])
        )

    def push(self, embeddings: Tensor, texts: Sequence[str]) -> None:
        """Put embeddings (n, D) of texts behind the others; the oldest leave."""
        keys = text_keys(texts).to(self.keys.device)
        self.embeddings = torch.cat([self.embeddings, embeddings])[-self.size :]
        self.keys = torch.cat([self.keys, keys])[-self.size :]

    def same_text(self, anchors: Sequence[str], positives: Sequence[str]) -> Tensor:
        """Mark what has the text of a row's anchor or positive, and is no negative: (N, Q)."""
        marks = [
            text_keys(texts).to(self.keys.device)[:, None] == self.keys
            for texts in (anchors, positives)
        ]
        return marks[0] | marks[1]

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs besides the copy's weights."""
        return {"embeddings": self.embeddings, "keys": self.keys}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        self.embeddings = state["embeddings"].to(self.embeddings.device)
        self.keys = state["keys"].to(self.keys.device)


def text_keys(texts: Sequence[str]) -> Tensor:
    """Name texts by 64 bits of a hash: (n,) int64."""
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return torch.tensor(
        [int.from_bytes(digest, "little", signed=True) for digest in digests], dtype=torch.int64
    )

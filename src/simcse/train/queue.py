"""Embeddings of earlier batches as further negatives: ESimCSE's momentum queue."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from simcse.losses.contrastive import text_keys
from simcse.model.encoder import SentenceEncoder
from simcse.train.batches import EncoderPass


class MomentumQueue(nn.Module):
    """Embeddings of the latest anchors by a slowly following copy of the encoder, dropout-free.

    Wu et al. 2022, ESimCSE, after He et al. 2020, MoCo. The copy's weights are part of the
    optimizer's state; whoever takes a step moves them (`Optimizer.follow`).

    Attributes:
        encoder: the copy.
        size: the largest number of embeddings.
        embeddings: (Q, D), the oldest first; empty before the first step.
        keys: (Q,) int64, of their texts (see `text_keys`).
    """

    def __init__(self, encoder: SentenceEncoder, size: int) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Remove all embeddings."""
        device = self.encoder.device
        self.embeddings = torch.empty(0, self.encoder.dimensions, device=device)
        self.keys = torch.empty(0, dtype=torch.int64, device=device)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], *, micro_batch_tokens: int) -> Tensor:
        """Embed anchors for the queue: (n, D)."""
        if not texts:
            return self.embeddings[:0]
        batch = self.encoder.tokenizer(texts).to(self.encoder.device)
        dropout_free = EncoderPass(("anchors",), self.encoder, dropout=False)
        embedded = [dropout_free.embed(each) for each in batch.split(micro_batch_tokens)]
        return batch.unsort(torch.cat(embedded))

    def push(self, embeddings: Tensor, texts: Sequence[str]) -> None:
        """Append embeddings (n, D) of texts; the oldest leave."""
        keys = text_keys(texts).to(self.keys.device)
        self.embeddings = torch.cat([self.embeddings, embeddings])[-self.size :]
        self.keys = torch.cat([self.keys, keys])[-self.size :]

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint needs besides the copy's weights."""
        return {"embeddings": self.embeddings, "keys": self.keys}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.embeddings = state["embeddings"].to(self.embeddings.device)
        self.keys = state["keys"].to(self.keys.device)

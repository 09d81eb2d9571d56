"""From a batch of examples to the loss that one step minimises."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simcse.errors import UsageError
from simcse.io.examples import Example
from simcse.loss import (
    LossConfig,
    backward_in_pieces,
    contrastive_loss,
    duplicate_mask,
    spread_penalty,
)
from simcse.model.dropout import noise_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import Tokenizer
from simcse.train.optim import CHUNK_TOKENS


@dataclass(frozen=True)
class LossParts:
    """A step's loss and its two terms, before their weights; 0 where a term is left out."""

    total: Tensor
    contrastive: Tensor
    mlm: Tensor


class Objective(nn.Module):
    """The contrastive loss of a batch, plus the MLM term where it is asked for.

    Dropout and masking are functions of seed and step, whatever the pieces of a batch.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        config: LossConfig,
        *,
        seed: int = 0,
        chunk_tokens: int = CHUNK_TOKENS,
        mlm_head: MlmHead | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.seed = seed
        self.chunk_tokens = chunk_tokens
        self.mlm_head = mlm_head
        self.tokenizer = Tokenizer(encoder.tokenizer.inner, max_length=encoder.tokenizer.max_length)
        if mlm_head is not None and encoder.tokenizer.inner.mask_token_id is None:
            raise UsageError("loss.mlm_weight needs a tokenizer with a mask token")

    def backward(
        self, rows: Sequence[Example], step: int, *, collect: Callable[[], None] = lambda: None
    ) -> LossParts:
        """Compute the loss of a batch and add its gradient to the parameters'.

        Args:
            rows: the examples of step ``step``.
            step: with the seed it decides dropout and masking.
            collect: called whenever a piece of the batch has added its gradient.
        """
        contrastive = mlm = torch.zeros((), device=self.encoder.device)
        noise = self.encoder.backbone.noise
        if self.config.contrastive_weight > 0:
            noise.key = noise_key(self.seed, step)
            contrastive = self.contrastive_term(rows, collect)
        if self.mlm_head is not None:
            noise.key = noise_key(self.seed, step, 1)
            texts = [row.anchor for row in rows]
            mlm = self.mlm_term(texts, self.mlm_head, seed=noise.key, collect=collect)
        noise.key = None
        total = self.config.contrastive_weight * contrastive + self.config.mlm_weight * mlm
        return LossParts(total, contrastive, mlm)

    def contrastive_term(self, rows: Sequence[Example], collect: Callable[[], None]) -> Tensor:
        """Encode anchors, positives and hard negatives in one pass and compare them.

        A row without a positive is its own positive: the same sentence stands twice in the
        pass and meets two independent dropout masks.
        """
        anchors = [row.anchor for row in rows]
        positives = [row.anchor if row.positive is None else row.positive for row in rows]
        negatives = [text for row in rows for text in row.negatives]
        owners = [i for i, row in enumerate(rows) for _ in row.negatives]
        device = self.encoder.device
        batch = self.tokenizer([*anchors, *positives, *negatives]).to(device)
        ignore = None
        if self.config.mask_duplicates:
            ignore = duplicate_mask(anchors, positives, negatives).to(device)

        def loss(embedded: Tensor) -> Tensor:
            embedded = batch.restore(embedded)  # (2N + M, D)
            spread = spread_penalty(embedded[: len(rows)], self.config.regulariser)
            return self.config.regulariser_weight * spread + contrastive_loss(
                embedded[: len(rows)],
                embedded[len(rows) :],
                temperature=self.config.temperature,
                owners=torch.tensor(owners, dtype=torch.int64, device=device),
                hard_negative_weight=self.config.hard_negative_weight,
                ignore=ignore,
            )

        return backward_in_pieces(
            self.encoder.embed,
            batch.split(self.chunk_tokens),
            loss,
            weight=self.config.contrastive_weight,
            collect=collect,
        )

    def mlm_term(
        self, texts: Sequence[str], head: MlmHead, *, seed: int, collect: Callable[[], None]
    ) -> Tensor:
        """Cross-entropy of the masked tokens of the anchors; 0 where none was masked."""
        tokenizer = self.tokenizer.inner
        batch = self.tokenizer(texts).to(self.encoder.device)
        table = self.encoder.backbone.model.get_input_embeddings().weight  # (V, E)
        masked, chosen = mask_tokens(
            batch,
            rate=self.config.mlm_rate,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=len(table),
            seed=seed,
        )
        pieces = masked.split(self.chunk_tokens)
        sizes = [len(piece.input_ids) for piece in pieces]
        total = torch.zeros((), device=batch.input_ids.device)
        for piece, guessed, ids in zip(
            pieces, torch.split(chosen, sizes), torch.split(batch.input_ids, sizes), strict=True
        ):
            hidden = self.encoder.backbone(piece)[0][guessed]  # (M, D)
            logits = head(hidden, table.to(hidden.dtype)).float()  # (M, V)
            # The mean of the batch, as a sum: it can be differentiated where nothing was masked.
            loss = nn.functional.cross_entropy(logits, ids[guessed], reduction="sum")
            loss = loss / max(1, int(chosen.sum()))
            torch.autograd.backward(self.config.mlm_weight * loss)
            collect()
            total += loss.detach()
        return total

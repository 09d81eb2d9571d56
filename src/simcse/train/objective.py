"""From a batch of examples to the loss that one step minimises."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from simcse.errors import UsageError
from simcse.io.examples import Example
from simcse.loss import LossConfig, contrastive_loss, duplicate_mask
from simcse.model.dropout import noise_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import Tokenizer


@dataclass(frozen=True)
class LossParts:
    """A step's loss and its two terms, before their weights; 0 where a term is left out."""

    total: Tensor
    contrastive: Tensor
    mlm: Tensor


class Objective(nn.Module):
    """The contrastive loss of a batch, plus the MLM term where it is asked for.

    Dropout and masking are functions of seed and step: nothing else is drawn.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        config: LossConfig,
        *,
        seed: int = 0,
        mlm_head: MlmHead | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self.seed = seed
        self.mlm_head = mlm_head
        self.tokenizer = Tokenizer(encoder.tokenizer.inner, max_length=encoder.tokenizer.max_length)
        if mlm_head is not None and encoder.tokenizer.inner.mask_token_id is None:
            raise UsageError("loss.mlm_weight needs a tokenizer with a mask token")

    def forward(self, rows: Sequence[Example], step: int) -> LossParts:
        """Compute the loss of a batch of examples, the one of step ``step``."""
        contrastive = mlm = torch.zeros((), device=self.encoder.device)
        noise = self.encoder.backbone.noise
        if self.config.contrastive_weight > 0:
            noise.key = noise_key(self.seed, step)
            contrastive = self.contrastive_term(rows)
        if self.mlm_head is not None:
            noise.key = noise_key(self.seed, step, 1)
            mlm = self.mlm_term([row.anchor for row in rows], self.mlm_head, seed=noise.key)
        total = self.config.contrastive_weight * contrastive + self.config.mlm_weight * mlm
        return LossParts(total, contrastive.detach(), mlm.detach())

    def contrastive_term(self, rows: Sequence[Example]) -> Tensor:
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
        embedded = self.encoder(batch)  # (2N + M, D)
        ignore = None
        if self.config.mask_duplicates:
            ignore = duplicate_mask(anchors, positives, negatives).to(device)
        return contrastive_loss(
            embedded[: len(rows)],
            embedded[len(rows) :],
            temperature=self.config.temperature,
            owners=torch.tensor(owners, dtype=torch.int64, device=device),
            hard_negative_weight=self.config.hard_negative_weight,
            ignore=ignore,
        )

    def mlm_term(self, texts: Sequence[str], head: MlmHead, *, seed: int) -> Tensor:
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
        hidden = self.encoder.backbone(masked)[0][chosen]  # (M, D)
        logits = head(hidden, table.to(hidden.dtype)).float()  # (M, V)
        targets = batch.input_ids[chosen]
        # The mean, as a sum: it can be differentiated where no token was masked.
        return nn.functional.cross_entropy(logits, targets, reduction="sum") / max(1, len(targets))

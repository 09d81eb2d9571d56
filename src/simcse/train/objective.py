"""From a batch of examples to the loss that one step minimises."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

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
from simcse.text import TokenBatch, Tokenizer
from simcse.train.optim import CHUNK_TOKENS
from simcse.train.processes import ALONE, Processes


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
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.processes = processes
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
            mlm = self.mlm_term(rows, self.mlm_head, key=noise.key, collect=collect)
        noise.key = None
        total = self.config.contrastive_weight * contrastive + self.config.mlm_weight * mlm
        return LossParts(total, contrastive, mlm)

    @torch.no_grad()
    def measure(self, rows: Sequence[Example], step: int) -> float:
        """Compute the contrastive loss of rows, as `backward` would, without a gradient."""
        noise, batch = self.encoder.backbone.noise, self._tokenize(rows)
        noise.key = noise_key(self.seed, step)
        embedded = torch.cat(
            [self.encoder.embed(piece) for piece in batch.split(self.chunk_tokens)]
        )
        noise.key = None
        return float(self._loss(batch.restore(embedded), rows))

    def contrastive_term(self, rows: Sequence[Example], collect: Callable[[], None]) -> Tensor:
        """Encode this process's anchors, positives and hard negatives and compare with all.

        A row without a positive is its own positive: the same sentence stands twice in the
        pass and meets two independent dropout masks.
        """
        if not self.processes.share(rows):  # a last batch with fewer rows than processes
            return self._loss(torch.zeros(0, self.encoder.dimensions).to(self.encoder.device), rows)
        batch = self._tokenize(rows)
        return backward_in_pieces(
            self.encoder.embed,
            batch.split(self.chunk_tokens),
            lambda embedded: self._loss(batch.restore(embedded), rows),
            weight=self.config.contrastive_weight,
            collect=collect,
        )

    def _tokenize(self, rows: Sequence[Example]) -> TokenBatch:
        """Tokenise this process's share: each sentence has its number in the whole batch.

        So it meets the same dropout masks, however many processes share the batch.
        """
        own, numbers, done = _columns(self.processes.share(rows)), list[int](), 0
        before = _columns(self.processes.before(rows))
        for column, texts in enumerate(_columns(rows)):
            first = done + len(before[column])
            numbers += range(first, first + len(own[column]))
            done += len(texts)
        batch = self.tokenizer(list(itertools.chain(*own))).to(self.encoder.device)
        return replace(batch, order=torch.tensor(numbers, device=batch.order.device)[batch.order])

    def _loss(self, own: Tensor, rows: Sequence[Example]) -> Tensor:
        """Compare the embeddings of all processes: own (2n + m, D), in the order of the rows."""
        device = own.device
        anchors, positives, negatives = self._gather(own, rows)
        ignore = None
        if self.config.mask_duplicates:
            ignore = duplicate_mask(*_columns(rows)).to(device)
        owners = [i for i, row in enumerate(rows) for _ in row.negatives]
        spread = spread_penalty(anchors, self.config.regulariser)
        return self.config.regulariser_weight * spread + contrastive_loss(
            anchors,
            torch.cat([positives, negatives]),
            temperature=self.config.temperature,
            owners=torch.tensor(owners, dtype=torch.int64, device=device),
            hard_negative_weight=self.config.hard_negative_weight,
            ignore=ignore,
        )

    def _gather(self, own: Tensor, rows: Sequence[Example]) -> list[Tensor]:
        """Return all anchors (N, D), positives (N, D) and hard negatives (M, D)."""
        ranks = range(self.processes.world)
        shares = [_columns(self.processes.share(rows, rank)) for rank in ranks]
        sizes = [[len(share[column]) for share in shares] for column in range(3)]
        parts = torch.split(own, [size[self.processes.rank] for size in sizes])
        return [self.processes.gather(part, size) for part, size in zip(parts, sizes, strict=True)]

    def mlm_term(
        self, rows: Sequence[Example], head: MlmHead, *, key: int, collect: Callable[[], None]
    ) -> Tensor:
        """Cross-entropy of the masked tokens of the anchors; 0 where none was masked.

        As in the contrastive term each sentence has its number in the whole batch.
        """
        texts = [row.anchor for row in self.processes.share(rows)]
        if not texts:  # the other processes wait for what this one adds: nothing
            return self.processes.sum_values(torch.zeros(()) * self.processes.total(0))
        tokenizer = self.tokenizer.inner
        batch = self.tokenizer(texts).to(self.encoder.device)
        batch = replace(batch, order=batch.order + len(self.processes.before(rows)))
        table = self.encoder.backbone.model.get_input_embeddings().weight  # (V, E)
        masked, chosen = mask_tokens(
            batch,
            rate=self.config.mlm_rate,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=len(table),
            key=key,
        )
        guesses = max(1, self.processes.total(int(chosen.sum())))
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
            loss = loss / guesses
            torch.autograd.backward(self.config.mlm_weight * loss)
            collect()
            total += loss.detach()
        return self.processes.sum_values(total)


def _columns(rows: Sequence[Example]) -> tuple[list[str], list[str], list[str]]:
    """Return anchors, positives and hard negatives."""
    return (
        [row.anchor for row in rows],
        [row.anchor if row.positive is None else row.positive for row in rows],
        [text for row in rows for text in row.negatives],
    )

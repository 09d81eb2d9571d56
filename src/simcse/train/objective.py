"""From a batch of examples to the loss that one step minimises."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from simcse.augment import repeat_tokens
from simcse.errors import ConfigError, UsageError
from simcse.io.examples import Example
from simcse.loss import (
    LossConfig,
    backward_in_pieces,
    contrastive_loss,
    dimension_loss,
    duplicate_mask,
    spread_penalty,
)
from simcse.model.dropout import noise_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import TokenBatch, Tokenizer, pack
from simcse.train.optim import CHUNK_TOKENS
from simcse.train.processes import ALONE, Processes


@dataclass(frozen=True)
class LossParts:
    """A step's loss and its two terms, before their weights; 0 where a term is left out."""

    total: Tensor
    contrastive: Tensor
    mlm: Tensor


@dataclass(frozen=True)
class _Batch:
    """One process's share of a batch, tokenised.

    Attributes:
        noisy: anchors, positives and hard negatives, to be encoded with dropout.
        clean: the anchors once more, to be encoded without; ``None`` where nobody asks for it.
    """

    noisy: TokenBatch
    clean: TokenBatch | None

    def pieces(self, tokens: int) -> list[tuple[TokenBatch, bool]]:
        """Cut into pieces to encode, each with whether it is without dropout."""
        clean = [] if self.clean is None else self.clean.split(tokens)
        return [(x, False) for x in self.noisy.split(tokens)] + [(x, True) for x in clean]

    def restore(self, embedded: Tensor) -> tuple[Tensor, Tensor | None]:
        """Bring the embeddings of all pieces, one after another, to the order of the rows."""
        count = len(self.noisy.lengths)
        clean = None if self.clean is None else self.clean.restore(embedded[count:])
        return self.noisy.restore(embedded[:count]), clean


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
        self._check_matryoshka()

    def _check_matryoshka(self) -> None:
        sizes, width = self.config.matryoshka, self.encoder.dimensions
        if sizes and max(sizes) >= width:
            raise ConfigError(f"loss.matryoshka must be below the model's {width}, got {sizes}")
        if sizes and self.encoder.settings.head == "train_only":
            raise ConfigError(
                "loss.matryoshka shapes what the head gives, which with head=train_only is not "
                "the embedding; set model.head=none or always"
            )

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
        noise = self.encoder.backbone.noise
        noise.key = noise_key(self.seed, step)
        batch = self._tokenize(rows)
        embedded = torch.cat([self._embed(piece) for piece in batch.pieces(self.chunk_tokens)])
        noise.key = None
        return float(self._loss(*batch.restore(embedded), rows))

    def contrastive_term(self, rows: Sequence[Example], collect: Callable[[], None]) -> Tensor:
        """Encode this process's anchors, positives and hard negatives and compare with all.

        A row without a positive is its own positive: the same sentence stands twice in the
        pass and meets two independent dropout masks.
        """
        if not self.processes.share(rows):  # a last batch with fewer rows than processes
            nothing = torch.zeros(0, self.encoder.dimensions).to(self.encoder.device)
            return self._loss(nothing, nothing if self._wants_clean else None, rows)
        batch = self._tokenize(rows)
        return backward_in_pieces(
            self._embed,
            batch.pieces(self.chunk_tokens),
            lambda embedded: self._loss(*batch.restore(embedded), rows),
            weight=self.config.contrastive_weight,
            collect=collect,
        )

    @property
    def _wants_clean(self) -> bool:
        return self.config.dropout_free_negatives

    def _embed(self, piece: tuple[TokenBatch, bool]) -> Tensor:
        """Embed a piece of a batch, with the backbone's dropout or without."""
        batch, clean = piece
        training = self.encoder.training
        self.encoder.backbone.train(training and not clean)
        embedded = self.encoder.embed(batch)
        self.encoder.backbone.train(training)
        return embedded

    def _tokenize(self, rows: Sequence[Example]) -> _Batch:
        """Tokenise this process's share: each sentence has its number in the whole batch.

        So it meets the same dropout masks and repetitions, however many processes share the batch.
        """
        own, numbers, done = _columns(self.processes.share(rows)), list[int](), 0
        before = _columns(self.processes.before(rows))
        for column, texts in enumerate(_columns(rows)):
            first = done + len(before[column])
            numbers += range(first, first + len(own[column]))
            done += len(texts)
        ids = self.tokenizer.ids(list(itertools.chain(*own)))
        if self.config.repetition:
            for place in range(len(own[0]), 2 * len(own[0])):  # the positives
                ids[place] = self._repeated(ids[place], numbers[place])
        batch = pack(ids).to(self.encoder.device)
        order = torch.tensor(numbers, device=batch.order.device)[batch.order]
        clean = pack(ids[: len(own[0])]).to(self.encoder.device) if self._wants_clean else None
        return _Batch(replace(batch, order=order), clean)

    def _repeated(self, ids: list[int], number: int) -> list[int]:
        repeated = repeat_tokens(
            ids,
            self.config.repetition,
            keep=self.tokenizer.inner.all_special_ids,
            seed=(self.encoder.backbone.noise.key or 0) + number,
        )
        return repeated if len(repeated) <= self.tokenizer.max_length else ids

    def _loss(self, own: Tensor, clean: Tensor | None, rows: Sequence[Example]) -> Tensor:
        """Compare the embeddings of all processes.

        Args:
            own: (2n + m, D), in the order of this process's rows.
            clean: (n, D), the anchors without dropout, where they are wanted.
            rows: those of all processes.
        """
        device = own.device
        anchors, positives, negatives = self._gather(own, rows)
        if clean is not None:
            ranks = range(self.processes.world)
            shares = [len(self.processes.share(rows, rank)) for rank in ranks]
            clean = self.processes.gather(clean, shares)
        ignore = None
        if self.config.mask_duplicates:
            ignore = duplicate_mask(*_columns(rows)).to(device)
        owners = [i for i, row in enumerate(rows) for _ in row.negatives]
        config, candidates = self.config, torch.cat([positives, negatives])
        loss = config.regulariser_weight * spread_penalty(anchors, config.regulariser)
        if config.dimension_weight:
            temperature = config.dimension_temperature
            told = dimension_loss(anchors, positives, temperature=temperature)
            loss = loss + config.dimension_weight * told
        # Each size counts once: Kusupati et al. 2022, Matryoshka Representation Learning.
        for size in (*(config.matryoshka or ()), anchors.shape[1]):
            loss = loss + contrastive_loss(
                anchors[:, :size],
                candidates[:, :size],
                temperature=config.temperature,
                owners=torch.tensor(owners, dtype=torch.int64, device=device),
                hard_negative_weight=config.hard_negative_weight,
                ignore=ignore,
                clean=None if clean is None else clean[:, :size],
                form=config.form,
                debias=config.debias,
                focal_margin=config.focal_margin,
            )
        return loss

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


def refuse_unfit(rows: Sequence[Example], config: LossConfig) -> None:
    """Refuse rows that the settings are not made for.

    Raises:
        ConfigError: a row has a positive or hard negatives, and sentences alone are expected.
    """
    single = [name for name in ("dropout_free_negatives", "repetition") if getattr(config, name)]
    if single and any(row.positive is not None or row.negatives for row in rows):
        raise ConfigError(f"loss.{single[0]} is for sentences alone, these rows have positives")


def _columns(rows: Sequence[Example]) -> tuple[list[str], list[str], list[str]]:
    """Return anchors, positives and hard negatives."""
    return (
        [row.anchor for row in rows],
        [row.anchor if row.positive is None else row.positive for row in rows],
        [text for row in rows for text in row.negatives],
    )

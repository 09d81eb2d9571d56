"""From a batch of examples to the loss that one step minimizes."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from simcse.data.augment import repeat_tokens
from simcse.errors import ConfigError, UsageError
from simcse.io.records import LABELS, Example
from simcse.loss import (
    LossConfig,
    backward_in_pieces,
    contrastive_loss,
    dimension_loss,
    duplicate_mask,
    spread_penalty,
)
from simcse.model.dropout import dropout_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import TokenBatch, Tokenizer
from simcse.train.batches import Batch, Pass, columns, embed, tokenize
from simcse.train.classifier import PairClassifier
from simcse.train.optim import CHUNK_TOKENS
from simcse.train.processes import ALONE, Processes
from simcse.train.queue import MomentumQueue

LOOKED_AT = 100  # rows, for labels where sentences should stand


@dataclass(frozen=True)
class LossParts:
    """A step's loss and its two terms, before their weights; 0 where a term is left out.

    With ``loss.form=classifier`` its cross-entropy stands for the contrastive term.
    """

    total: Tensor
    contrastive: Tensor
    mlm: Tensor


@dataclass(frozen=True)
class _Masked:
    """A piece of a batch, T tokens, some of them masked.

    Attributes:
        batch: what the model sees.
        chosen: (T,) bool, the tokens to guess.
        truth: (T,) the tokens as they were.
    """

    batch: TokenBatch
    chosen: Tensor
    truth: Tensor


class Objective(nn.Module):
    """The contrastive loss of a batch, plus the MLM term where it is asked for.

    Dropout and masking are functions of seed and step, whatever the pieces of a batch. With a
    ``second`` encoder that one embeds the positives and hard negatives, ``encoder`` the anchors.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        config: LossConfig,
        *,
        seed: int = 0,
        micro_batch_tokens: int = CHUNK_TOKENS,
        mlm_head: MlmHead | None = None,
        second: SentenceEncoder | None = None,
        classifier: PairClassifier | None = None,
        queue: MomentumQueue | None = None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.processes = processes
        self.encoder = encoder
        self.config = config
        self.seed = seed
        self.micro_batch_tokens = micro_batch_tokens
        self.mlm_head = mlm_head
        self.second = second
        self.classifier = classifier
        self.queue = queue
        self.tokenizer = Tokenizer(
            encoder.tokenizer.hf_tokenizer, max_length=encoder.tokenizer.max_length
        )
        if mlm_head is not None and encoder.tokenizer.hf_tokenizer.mask_token_id is None:
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
        if self.config.contrastive_weight > 0:
            with self._dropout_keys(dropout_key(self.seed, step)):
                if self.classifier is None:
                    contrastive = self.contrastive_term(rows, collect)
                else:
                    contrastive = self.classifier_term(rows, self.classifier, collect)
        if self.mlm_head is not None:
            key = dropout_key(self.seed, step, 1)
            with self._dropout_keys(key):
                mlm = self.mlm_term(rows, self.mlm_head, key=key, collect=collect)
        total = self.config.contrastive_weight * contrastive + self.config.mlm_weight * mlm
        return LossParts(total, contrastive, mlm)

    @torch.no_grad()
    def measure(self, rows: Sequence[Example], step: int) -> float:
        """Compute the contrastive loss of rows, as `backward` would, without a gradient."""
        with self._dropout_keys(dropout_key(self.seed, step)):
            batch = self._tokenize(rows)
            embedded = torch.cat([embed(piece) for piece in batch.pieces(self.micro_batch_tokens)])
        return float(self._loss(batch.unsort(embedded), rows))

    def contrastive_term(self, rows: Sequence[Example], collect: Callable[[], None]) -> Tensor:
        """Encode this process's anchors, positives and hard negatives and compare with all.

        A row without a positive is its own positive: the same sentence stands twice in the
        pass and meets two independent dropout masks. A queue takes the anchors after that.
        """
        if self.processes.share(rows):
            loss = self._backward(rows, lambda own: self._loss(own, rows), collect)
        else:  # a last batch with fewer rows than processes
            nothing = torch.zeros(0, self.encoder.dimensions).to(self.encoder.device)
            loss = self._loss({name: nothing for way in self.passes for name in way.columns}, rows)
        if self.queue is not None:
            texts = [row.anchor for row in self.processes.share(rows)]
            own = {"anchors": self.queue.embed(texts, micro_batch_tokens=self.micro_batch_tokens)}
            found = self._gather(own, rows)
            self.queue.push(found["anchors"], [row.anchor for row in rows])
        return loss

    def classifier_term(
        self,
        rows: Sequence[Example],
        classifier: PairClassifier,
        collect: Callable[[], None],
    ) -> Tensor:
        """Cross-entropy of the rows' labels given anchors and positives (SBERT).

        A row's loss depends on nothing but the row: each process adds that of its own.
        """
        labels = [row.label for row in self.processes.share(rows)]
        total = classifier.dense.weight.new_zeros(())
        if labels:
            total = self._backward(
                rows,
                lambda own: classifier.loss(own["anchors"], own["positives"], labels) / len(rows),
                collect,
            )
        return self.processes.sum_values(total)

    def _backward(
        self,
        rows: Sequence[Example],
        loss: Callable[[Mapping[str, Tensor]], Tensor],
        collect: Callable[[], None],
    ) -> Tensor:
        """Embed this process's share of rows and add the gradient of a loss of the embeddings."""
        batch = self._tokenize(rows)
        return backward_in_pieces(
            embed,
            batch.pieces(self.micro_batch_tokens),
            lambda embedded: loss(batch.unsort(embedded)),
            weight=self.config.contrastive_weight,
            collect=collect,
        )

    @property
    def encoders(self) -> list[SentenceEncoder]:
        """All that embed."""
        queue = None if self.queue is None else self.queue.encoder
        return [each for each in (self.encoder, self.second, queue) if each is not None]

    @property
    def passes(self) -> list[Pass]:
        """How a batch is embedded."""
        anchors, others = ("anchors",), ("positives", "negatives")
        if self.config.fixed_mask:
            passes = [Pass(anchors, self.encoder)]
        elif self.second is not None or self.config.dropout_sampling:
            passes = [
                Pass(anchors, self.encoder, rate=self._rate(0)),
                Pass(others, self.second or self.encoder, rate=self._rate(1)),
            ]
        else:
            passes = [Pass((*anchors, *others), self.encoder)]
        if self.config.dropout_free_negatives:
            passes.append(Pass(("clean",), self.encoder, dropout=False))
        return passes

    def _rate(self, number: int) -> float | None:
        """Draw the dropout rate of a pass, where rates are drawn (Zhang and Lan 2021, S-SimCSE).

        As the masks it is a function of seed and step.
        """
        rates, key = self.config.dropout_sampling, self.encoder.backbone.dropout_rng.key
        return None if rates is None else random.Random(f"{key} {number}").choice(rates)

    @contextlib.contextmanager
    def _dropout_keys(self, key: int) -> Iterator[None]:
        """Let all encoders draw the dropout masks that ``key`` names."""
        for encoder in self.encoders:
            encoder.backbone.dropout_rng.key = key
        try:
            yield
        finally:
            for encoder in self.encoders:
                encoder.backbone.dropout_rng.key = None

    def _tokenize(self, rows: Sequence[Example]) -> Batch:
        change = self._repeated if self.config.repetition else None
        return tokenize(self.passes, rows, self.tokenizer, self.processes, change=change)

    def _repeated(self, ids: list[int], number: int) -> list[int]:
        """Repeat some tokens of a positive: the same ones, however many processes there are."""
        repeated = repeat_tokens(
            ids,
            self.config.repetition,
            keep=self.tokenizer.hf_tokenizer.all_special_ids,
            seed=(self.encoder.backbone.dropout_rng.key or 0) + number,
        )
        return repeated if len(repeated) <= self.tokenizer.max_length else ids

    def _loss(self, own: Mapping[str, Tensor], rows: Sequence[Example]) -> Tensor:
        """Compare the embeddings of all processes.

        Args:
            own: this process's embeddings (n, D) of each column.
            rows: those of all processes.
        """
        config = self.config
        if config.form == "classifier":
            raise UsageError("loss.form=classifier needs a classifier, it has no contrastive loss")
        found = self._gather(own, rows)
        anchors = found["anchors"]  # (N, D)
        positives = found.get("positives", anchors)  # left out, they are the very same
        earlier = anchors[:0] if self.queue is None else self.queue.embeddings  # (Q, D)
        negatives = torch.cat([found.get("negatives", anchors[:0]), earlier])
        candidates = torch.cat([positives, negatives])  # (N + M + Q, D)
        clean = found.get("clean")
        ignore = self._own_texts(rows) if config.mask_duplicates else None
        owners = [i for i, row in enumerate(rows) for _ in row.negatives]
        loss = config.regularizer_weight * spread_penalty(anchors, config.regularizer)
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
                similarity=config.similarity,
                owners=torch.tensor(owners, dtype=torch.int64, device=anchors.device),
                hard_negative_weight=config.hard_negative_weight,
                ignore=ignore,
                clean=None if clean is None else clean[:, :size],
                form=config.form,
                debias=config.debias,
                focal_margin=config.focal_margin,
            )
        return loss

    def _own_texts(self, rows: Sequence[Example]) -> Tensor:
        """Mark the candidates that are no negatives by their text: (N, N + M + Q) bool."""
        texts = columns(rows)
        same = duplicate_mask(*texts.values()).to(self.encoder.device)
        if self.queue is None:
            return same
        queued = self.queue.same_text(texts["anchors"], texts["positives"])
        return torch.cat([same, queued], dim=1)

    def _gather(self, own: Mapping[str, Tensor], rows: Sequence[Example]) -> dict[str, Tensor]:
        """Return the embeddings of all processes' rows, (N, D) or (M, D) of each column."""
        ranks = range(self.processes.world)
        shares = [columns(self.processes.share(rows, rank)) for rank in ranks]
        shares = [{**share, "clean": share["anchors"]} for share in shares]
        return {
            name: self.processes.gather(part, [len(share[name]) for share in shares])
            for name, part in own.items()
        }

    def mlm_term(
        self, rows: Sequence[Example], head: MlmHead, *, key: int, collect: Callable[[], None]
    ) -> Tensor:
        """Cross-entropy of the masked tokens of the anchors; 0 where none was masked.

        As in the contrastive term each sentence has its number in the whole batch.
        """
        rate = self._rate(0)
        if rate is not None:
            self.encoder.backbone.set_dropout(rate)
        if not self.processes.share(rows):  # the others wait for what this one adds: nothing
            return self.processes.sum_values(torch.zeros(()) * self.processes.total(0))
        pieces = self._mask(rows, key)
        guesses = max(1, self.processes.total(sum(int(piece.chosen.sum()) for piece in pieces)))
        total = torch.zeros((), device=self.encoder.device)
        for piece in pieces:
            # The mean of the batch, as a sum: it can be differentiated where nothing was masked.
            loss = self._guess(piece, head) / guesses
            torch.autograd.backward(self.config.mlm_weight * loss)
            collect()
            total += loss.detach()
        return self.processes.sum_values(total)

    @torch.no_grad()
    def measure_mlm(self, rows: Sequence[Example], head: MlmHead, step: int) -> tuple[float, int]:
        """Sum the cross-entropy of the tokens that step ``step`` masks, and count them."""
        pieces = self._mask(rows, dropout_key(self.seed, step, 1))
        loss = sum(float(self._guess(piece, head)) for piece in pieces)
        return loss, sum(int(piece.chosen.sum()) for piece in pieces)

    def _mask(self, rows: Sequence[Example], key: int) -> list[_Masked]:
        """Tokenize and mask this process's anchors, in pieces to encode."""
        tokenizer = self.tokenizer.hf_tokenizer
        batch = self.tokenizer([row.anchor for row in self.processes.share(rows)])
        batch = batch.to(self.encoder.device)
        batch = replace(
            batch, original_index=batch.original_index + len(self.processes.before(rows))
        )
        masked, chosen = mask_tokens(
            batch,
            rate=self.config.mlm_rate,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=self.encoder.backbone.model.get_input_embeddings().num_embeddings,
            key=key,
        )
        pieces = masked.split(self.micro_batch_tokens)
        sizes = [len(piece.input_ids) for piece in pieces]
        parts = (torch.split(each, sizes) for each in (chosen, batch.input_ids))
        return [_Masked(*piece) for piece in zip(pieces, *parts, strict=True)]

    def _guess(self, piece: _Masked, head: MlmHead) -> Tensor:
        """Sum the cross-entropy of a piece's masked tokens; no other is scored."""
        hidden = self.encoder.backbone(piece.batch)[0][piece.chosen]  # (M, D)
        table = self.encoder.backbone.model.get_input_embeddings().weight  # (V, E)
        logits = head(hidden, table.to(hidden.dtype)).float()  # (M, V)
        return nn.functional.cross_entropy(logits, piece.truth[piece.chosen], reduction="sum")


def refuse_unfit(rows: Sequence[Example], config: LossConfig) -> None:
    """Refuse rows that the settings are not made for.

    Raises:
        ConfigError: a row has a positive or hard negatives, and sentences alone are expected; or
            labels are missing where they are needed, or stand where sentences should.
    """
    alone = ("fixed_mask", "dropout_free_negatives", "repetition")
    single = [name for name in alone if getattr(config, name)]
    if single and any(row.positive is not None or row.negatives for row in rows):
        raise ConfigError(f"loss.{single[0]} is for sentences alone, these rows have positives")
    labels, anchors = {row.label for row in rows}, {row.anchor for row in rows[:LOOKED_AT]}
    if config.form == "classifier" and ("" in labels or len(labels) < 2):
        raise ConfigError("loss.form=classifier needs labeled rows, with two labels at least")
    if config.form != "classifier" and anchors and anchors <= {*LABELS}:
        raise ConfigError(
            f"the rows begin with a label ({rows[0].anchor}): loss.form=classifier trains on it, "
            "`simcse data nli` makes pairs or triplets of such rows"
        )

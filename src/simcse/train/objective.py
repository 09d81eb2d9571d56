"""From a batch of examples to the loss that one step minimizes, and its gradient."""

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from simcse.errors import ConfigError, UsageError
from simcse.io.records import LABELS, Example
from simcse.losses import CLASSIFIER, build_loss, scalar
from simcse.losses.classifier import ClassifierLoss
from simcse.losses.contrastive import at_least_fp32, duplicate_mask
from simcse.losses.dimension import DimensionLoss
from simcse.losses.gradcache import gradcache_backward
from simcse.losses.settings import REGULARIZERS, LossConfig
from simcse.model.dropout import dropout_key
from simcse.model.encoder import SentenceEncoder
from simcse.model.mlm import MlmHead, mask_tokens
from simcse.text import TokenBatch, Tokenizer
from simcse.train import batches
from simcse.train.batches import DROPOUT_FREE, EncoderPass, TrainingBatch
from simcse.train.optim import CHUNK_TOKENS
from simcse.train.processes import ALONE, Processes
from simcse.train.queue import MomentumQueue

LABEL_CHECK_ROWS = 100  # rows in which labels are searched where sentences are expected
Masked = tuple[TokenBatch, Tensor, Tensor]  # T tokens; (T,) which to predict; (T,) what they were


@dataclass(frozen=True)
class LossTerms:
    """A step's loss and its two terms, before their weights; 0 where a term is left out.

    With ``loss.type=classifier`` its cross-entropy takes the place of the contrastive term.
    """

    total: Tensor
    contrastive: Tensor
    mlm: Tensor


class Objective(nn.Module):
    """The contrastive loss of a batch, plus the MLM term if one is configured.

    Dropout and masking are functions of seed and step, whatever the micro-batches. A ``second``
    encoder embeds the positives and hard negatives, and ``encoder`` the anchors alone.
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
        classifier: ClassifierLoss | None = None,
        queue: MomentumQueue | None = None,
        processes: Processes = ALONE,
    ) -> None:
        super().__init__()
        self.encoder, self.config, self.seed, self.processes = encoder, config, seed, processes
        self.micro_batch_tokens, self.mlm_head, self.second = micro_batch_tokens, mlm_head, second
        self.classifier, self.queue = classifier, queue
        classifies = config.type == CLASSIFIER
        self.loss = None if classifies else build_loss(config.type, config.arguments)
        for weight in self.loss_parameters:  # every process computes the loss of all rows
            register: Any = weight.register_hook  # torch gives no type
            register(lambda gradient: gradient / processes.world)
        hf_tokenizer = encoder.tokenizer.hf_tokenizer
        self.tokenizer = Tokenizer(hf_tokenizer, max_length=encoder.tokenizer.max_length)
        if mlm_head is not None and hf_tokenizer.mask_token_id is None:
            raise UsageError("loss.mlm_weight needs a tokenizer with a mask token")
        dims, width = config.matryoshka, encoder.dimensions
        if dims and max(dims) >= width:
            raise ConfigError(f"loss.matryoshka must be below the model's {width}, got {dims}")
        if dims and encoder.settings.head == "train_only":
            raise ConfigError(
                "loss.matryoshka trains the output of the head, which with head=train_only is not "
                "the embedding; set model.head=none or always"
            )

    def backward(
        self, rows: Sequence[Example], step: int, *, collect: Callable[[], None] = lambda: None
    ) -> LossTerms:
        """Compute the loss of a batch and add its gradient to the parameters'.

        Args:
            rows: the examples of step ``step``, those of all processes.
            step: with the seed it decides dropout and masking.
            collect: called whenever a micro-batch has added its gradient.
        """
        contrastive = mlm = torch.zeros((), device=self.encoder.device)
        if self.config.contrastive_weight > 0:
            with self._dropout_keys(dropout_key(self.seed, step)):
                if self.classifier is None:
                    contrastive = self._contrastive_term(rows, collect)
                else:
                    contrastive = self._classifier_term(rows, self.classifier, collect)
        if self.mlm_head is not None:
            key = dropout_key(self.seed, step, 1)
            with self._dropout_keys(key):
                mlm = self._mlm_term(rows, self.mlm_head, key=key, collect=collect)
        total = self.config.contrastive_weight * contrastive + self.config.mlm_weight * mlm
        return LossTerms(total, contrastive, mlm)

    @torch.no_grad()
    def heldout_loss(self, rows: Sequence[Example], step: int) -> float:
        """Return the contrastive loss of rows, as `backward` computes it, without a gradient."""
        if self.loss_parameters:
            loss = f"loss.type={self.config.type}, which has parameters of its own"
            raise ConfigError(f"eval.dev=heldout cannot evaluate {loss}; set eval.dev=none")
        with self._dropout_keys(dropout_key(self.seed, step)):
            batch = self._tokenize(rows)
            micro_batches = batch.micro_batches(self.micro_batch_tokens)
            embedded = torch.cat([batches.embed(each) for each in micro_batches])
        return float(self._loss(batch.unsort(embedded), rows))

    @torch.no_grad()
    def heldout_mlm_loss(
        self, rows: Sequence[Example], head: MlmHead, step: int
    ) -> tuple[float, int]:
        """Sum the cross-entropy of the tokens that step ``step`` masks, and count them."""
        masked = self._mask(rows, dropout_key(self.seed, step, 1))
        return sum(float(self._predict(each, head)) for each in masked), _count(masked)

    def _contrastive_term(self, rows: Sequence[Example], collect: Callable[[], None]) -> Tensor:
        """Encode this process's anchors, positives and hard negatives and compare with all.

        A row without a positive is its own positive: the same sentence is encoded twice, under
        two independent dropout masks. The anchors then enter the queue, if there is one.
        """
        own_rows = self.processes.share(rows)
        if own_rows:
            loss = self._backward(rows, lambda own: self._loss(own, rows), collect)
        else:  # a last batch with fewer rows than processes
            empty = torch.zeros(0, self.encoder.dimensions).to(self.encoder.device)
            loss = self._loss({name: empty for each in self.passes for name in each.columns}, rows)
            if loss.requires_grad:  # by parameters of the loss itself
                torch.autograd.backward(self.config.contrastive_weight * loss)
        if self.queue is not None:
            texts = [row.anchor for row in own_rows]
            embedded = self.queue.embed(texts, micro_batch_tokens=self.micro_batch_tokens)
            gathered = self._gather({"anchors": embedded}, rows)
            self.queue.push(gathered["anchors"], [row.anchor for row in rows])
        return loss.detach()

    def _classifier_term(
        self, rows: Sequence[Example], classifier: ClassifierLoss, collect: Callable[[], None]
    ) -> Tensor:
        """Cross-entropy of the rows' labels given anchors and positives (SBERT).

        A row's loss depends on nothing but the row: each process adds that of its own.
        """
        labels = [row.label for row in self.processes.share(rows)]

        def loss(own: Mapping[str, Tensor]) -> Tensor:
            total: Tensor = classifier(own["anchors"], own["positives"], labels)
            return total / len(rows)

        nothing = classifier.dense.weight.new_zeros(())
        return self.processes.sum_values(self._backward(rows, loss, collect) if labels else nothing)

    def _mlm_term(
        self, rows: Sequence[Example], head: MlmHead, *, key: int, collect: Callable[[], None]
    ) -> Tensor:
        """Cross-entropy of the masked tokens of the anchors; 0 where none was masked."""
        rate = self._rate(0)
        if rate is not None:
            self.encoder.backbone.set_dropout(rate)
        masked = self._mask(rows, key) if self.processes.share(rows) else []
        count = max(1, self.processes.total(_count(masked)))
        total = torch.zeros((), device=self.encoder.device)
        for micro_batch in masked:
            # The mean of the batch, as a sum: it can be differentiated where nothing was masked.
            loss = self._predict(micro_batch, head) / count
            torch.autograd.backward(self.config.mlm_weight * loss)
            collect()
            total += loss.detach()
        return self.processes.sum_values(total)

    def _backward(
        self,
        rows: Sequence[Example],
        loss: Callable[[Mapping[str, Tensor]], Tensor],
        collect: Callable[[], None],
    ) -> Tensor:
        """Embed this process's share of rows and add the gradient of a loss of the embeddings."""
        batch = self._tokenize(rows)
        return gradcache_backward(
            batches.embed,
            batch.micro_batches(self.micro_batch_tokens),
            lambda embedded: loss(batch.unsort(embedded)),
            weight=self.config.contrastive_weight,
            collect=collect,
        )

    def _loss(self, own: Mapping[str, Tensor], rows: Sequence[Example]) -> Tensor:
        """Compare the embeddings of all processes.

        Args:
            own: this process's embeddings (n, D) of each column.
            rows: those of all processes.
        """
        config, queue = self.config, self.queue
        if self.loss is None:
            raise UsageError("loss.type=classifier needs a classifier, it has no contrastive loss")
        found = {name: at_least_fp32(each) for name, each in self._gather(own, rows).items()}
        anchors = found["anchors"]  # (N, D)
        positives = found.get("positives", anchors)  # left out, they are the very same
        queued = anchors[:0] if queue is None else queue.embeddings  # (Q, D)
        negatives = torch.cat([found.get("negatives", anchors[:0]), queued])  # (M + Q, D)
        owner_rows = [i for i, row in enumerate(rows) for _ in row.negatives]
        owner_rows += [-1] * len(queued)
        texts = batches.columns(rows).values()
        same_text = duplicate_mask(*texts, queued=None if queue is None else queue.keys)
        where = {
            "negative_owners": torch.tensor(owner_rows, dtype=torch.int64, device=anchors.device),
            "ignore": (same_text & config.mask_duplicates).to(anchors.device),  # (N, N + M + Q)
        }
        total = anchors.new_zeros(())
        if config.regularizer != "none":
            total = total + config.regularizer_weight * REGULARIZERS[config.regularizer](anchors)
        if config.dimension_weight:
            dimension_loss = DimensionLoss(config.dimension_temperature)(anchors, positives)
            total = total + config.dimension_weight * dimension_loss
        # Each number of dimensions counts once: Kusupati et al. 2022, Matryoshka.
        for width in (*(config.matryoshka or ()), anchors.shape[1]):
            if DROPOUT_FREE in found:
                where[DROPOUT_FREE] = found[DROPOUT_FREE][:, :width]
            first, second, third = (each[:, :width] for each in (anchors, positives, negatives))
            total = total + scalar(self.loss(first, second, third, **where), config.type)
        return total

    def _gather(self, own: Mapping[str, Tensor], rows: Sequence[Example]) -> dict[str, Tensor]:
        """Return the embeddings of all processes' rows, (N, D) or (M, D) of each column."""
        ranks = range(self.processes.world)
        shares = [batches.columns(self.processes.share(rows, rank)) for rank in ranks]
        shares = [{**share, DROPOUT_FREE: share["anchors"]} for share in shares]
        return {
            name: self.processes.gather(embedded, [len(share[name]) for share in shares])
            for name, embedded in own.items()
        }

    @property
    def loss_parameters(self) -> list[nn.Parameter]:
        """Parameters of a user's own loss."""
        return [*self.loss.parameters()] if isinstance(self.loss, nn.Module) else []

    @property
    def encoders(self) -> list[SentenceEncoder]:
        """All encoders: the trained one, the second one and that of the queue."""
        queue = None if self.queue is None else self.queue.encoder
        return [each for each in (self.encoder, self.second, queue) if each is not None]

    @property
    def passes(self) -> list[EncoderPass]:
        """How a batch is encoded."""
        anchors, others = ("anchors",), ("positives", "negatives")
        if self.config.fixed_mask:
            passes = [EncoderPass(anchors, self.encoder)]
        elif self.second is not None or self.config.dropout_sampling:
            passes = [
                EncoderPass(anchors, self.encoder, rate=self._rate(0)),
                EncoderPass(others, self.second or self.encoder, rate=self._rate(1)),
            ]
        else:
            passes = [EncoderPass((*anchors, *others), self.encoder)]
        if self.config.dropout_free_negatives:
            passes.append(EncoderPass((DROPOUT_FREE,), self.encoder, dropout=False))
        return passes

    def _rate(self, number: int) -> float | None:
        """Draw the dropout rate of a pass, where rates are drawn (Zhang and Lan 2021, S-SimCSE).

        Like the masks it is a function of seed and step.
        """
        rates, key = self.config.dropout_sampling, self.encoder.backbone.dropout_rng.key
        return None if rates is None else random.Random(f"{key} {number}").choice(rates)

    @contextlib.contextmanager
    def _dropout_keys(self, key: int) -> Iterator[None]:
        """Let all encoders draw the dropout masks of ``key``."""
        for encoder in self.encoders:
            encoder.backbone.dropout_rng.key = key
        try:
            yield
        finally:
            for encoder in self.encoders:
                encoder.backbone.dropout_rng.key = None

    def _tokenize(self, rows: Sequence[Example]) -> TrainingBatch:
        change = self._repeat_tokens if self.config.word_repetition else None
        return batches.tokenize(self.passes, rows, self.tokenizer, self.processes, change=change)

    def _repeat_tokens(self, ids: list[int], number: int) -> list[int]:
        """Repeat some tokens of a positive: the same ones, however many processes there are."""
        special, rate = self.tokenizer.hf_tokenizer.all_special_ids, self.config.word_repetition
        seed = (self.encoder.backbone.dropout_rng.key or 0) + number
        repeated = batches.repeat_tokens(ids, rate, special_ids=special, seed=seed)
        return repeated if len(repeated) <= self.tokenizer.max_length else ids

    def _mask(self, rows: Sequence[Example], key: int) -> list[Masked]:
        """Tokenize, mask and split this process's anchors; each is numbered in the whole batch."""
        tokenizer, before = self.tokenizer.hf_tokenizer, len(self.processes.before(rows))
        batch = self.tokenizer([row.anchor for row in self.processes.share(rows)])
        batch = batch.to(self.encoder.device)
        batch = replace(batch, original_index=batch.original_index + before)
        masked, chosen = mask_tokens(
            batch,
            rate=self.config.mlm_rate,
            mask_id=tokenizer.mask_token_id,
            special_ids=tokenizer.all_special_ids,
            vocabulary=self.encoder.backbone.model.get_input_embeddings().num_embeddings,
            key=key,
        )
        micro_batches = masked.split(self.micro_batch_tokens)
        lengths = [len(each.input_ids) for each in micro_batches]
        truth = (torch.split(each, lengths) for each in (chosen, batch.input_ids))
        return list(zip(micro_batches, *truth, strict=True))

    def _predict(self, masked: Masked, head: MlmHead) -> Tensor:
        """Sum the cross-entropy of the masked tokens; no other is scored."""
        batch, chosen, labels = masked
        hidden = self.encoder.backbone(batch)[0][chosen]  # (M, D)
        table = self.encoder.backbone.model.get_input_embeddings().weight  # (V, E)
        logits = head(hidden, table.to(hidden.dtype)).float()  # (M, V)
        return nn.functional.cross_entropy(logits, labels[chosen], reduction="sum")


def _count(masked: Sequence[Masked]) -> int:
    """Count the tokens to predict."""
    return sum(int(chosen.sum()) for _, chosen, _ in masked)


def refuse_unfit(rows: Sequence[Example], config: LossConfig) -> None:
    """Refuse rows that the settings are not made for.

    Raises:
        ConfigError: a row has a positive or hard negatives, and sentences alone are expected; or
            labels are missing where they are needed, or stand where sentences should.
    """
    alone = ("fixed_mask", "dropout_free_negatives", "word_repetition")
    single = [name for name in alone if getattr(config, name)]
    if single and any(row.positive is not None or row.negatives for row in rows):
        raise ConfigError(f"loss.{single[0]} is for sentences alone, these rows have positives")
    labels, anchors = {row.label for row in rows}, {row.anchor for row in rows[:LABEL_CHECK_ROWS]}
    if config.type == CLASSIFIER and ("" in labels or len(labels) < 2):
        raise ConfigError("loss.type=classifier needs labeled rows, with two labels at least")
    if config.type != CLASSIFIER and anchors and anchors <= {*LABELS}:
        raise ConfigError(
            f"the rows begin with a label ({rows[0].anchor}): loss.type=classifier trains on it, "
            "`simcse data nli` makes pairs or triplets of such rows"
        )

"""How the sentences of a batch are encoded: which of them together, and with which dropout.

A batch has up to four *columns* of sentences: ``anchors``, ``positives``, ``negatives`` (the hard
ones) and ``dropout_free``, the anchors once more where they are needed without dropout.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simcse.io.records import Example
from simcse.model.encoder import SentenceEncoder
from simcse.text import TokenBatch, Tokenizer, pack
from simcse.train.processes import Processes

DROPOUT_FREE = "dropout_free"
Columns = dict[str, list[str]]
Ids = list[int]


def columns(rows: Sequence[Example]) -> Columns:
    """Return anchors, positives and hard negatives of rows; an anchor alone is its own positive."""
    return {
        "anchors": [row.anchor for row in rows],
        "positives": [row.anchor if row.positive is None else row.positive for row in rows],
        "negatives": [text for row in rows for text in row.negatives],
    }


@dataclass(frozen=True)
class EncoderPass:
    """Columns that are encoded together."""

    columns: tuple[str, ...]  # their names
    encoder: SentenceEncoder  # the encoder they pass through
    dropout: bool = True  # whether the backbone's dropout applies while training
    rate: float | None = None  # of every dropout; None leaves each its own

    def embed(self, batch: TokenBatch) -> Tensor:
        """Embed sentences of these columns: (n, D) in the batch's own order."""
        backbone, training = self.encoder.backbone, self.encoder.training
        if self.rate is not None:
            backbone.set_dropout(self.rate)
        backbone.train(training and self.dropout)
        embedded = self.encoder.embed(batch)
        backbone.train(training)
        return embedded


MicroBatch = list[tuple[EncoderPass, TokenBatch]]


def embed(micro_batch: MicroBatch) -> Tensor:
    """Embed a micro-batch: (n, D), pass after pass, each in its batch's own order."""
    return torch.cat([encoder_pass.embed(batch) for encoder_pass, batch in micro_batch])


@dataclass(frozen=True)
class TrainingBatch:
    """One process's share of a batch, tokenized for each pass."""

    passes: MicroBatch  # each encoder pass with its tokens
    counts: dict[str, int]  # number of sentences of each column

    def micro_batches(self, tokens: int) -> list[MicroBatch]:
        """Split into micro-batches of at most ``tokens`` tokens, or of one longer sentence."""
        if sum(len(batch.input_ids) for _, batch in self.passes) <= tokens:
            return [self.passes]
        return [[(each, piece)] for each, batch in self.passes for piece in batch.split(tokens)]

    def unsort(self, embedded: Tensor) -> dict[str, Tensor]:
        """Split the embeddings of all micro-batches (B, D) by column, in the order of the rows."""
        found: dict[str, Tensor] = {}
        passes = torch.split(embedded, [len(batch.lengths) for _, batch in self.passes])
        for (each, batch), rows in zip(self.passes, passes, strict=True):
            counts = [self.counts[name] for name in each.columns]
            found |= zip(each.columns, torch.split(batch.unsort(rows), counts), strict=True)
        return found


def tokenize(
    passes: Sequence[EncoderPass],
    rows: Sequence[Example],
    tokenizer: Tokenizer,
    processes: Processes,
    *,
    change: Callable[[Ids, int], Ids] | None = None,
) -> TrainingBatch:
    """Tokenize this process's share of a batch, at least one row.

    Each sentence is numbered in the whole batch, so that it gets the same dropout masks whatever
    the number of processes. ``change`` changes the ids of a positive, given its number.
    """
    own, before, every = (
        columns(part) for part in (processes.share(rows), processes.before(rows), rows)
    )
    ids: dict[str, list[Ids]] = {}
    numbers: dict[str, range] = {}
    done = 0
    for name, texts in own.items():
        ids[name] = tokenizer.ids(texts) if texts else []
        first = done + len(before[name])
        numbers[name] = range(first, first + len(texts))
        done += len(every[name])
    if change is not None:
        pairs = zip(ids["positives"], numbers["positives"], strict=True)
        ids["positives"] = [change(*pair) for pair in pairs]
    ids[DROPOUT_FREE], numbers[DROPOUT_FREE] = ids["anchors"], numbers["anchors"]
    packed = []
    for each in passes:
        batch = pack([sentence for name in each.columns for sentence in ids[name]])
        order = torch.tensor([number for name in each.columns for number in numbers[name]])
        batch = replace(batch, original_index=order[batch.original_index])
        packed.append((each, batch.to(each.encoder.device)))
    return TrainingBatch(packed, {name: len(sentences) for name, sentences in ids.items()})


def repeat_tokens(
    ids: Sequence[int], rate: float, *, special_ids: Collection[int], seed: int
) -> list[int]:
    """Repeat some tokens in place, so that length no longer separates positives from negatives.

    Of n tokens that are not special, a number drawn from 0 to max(2, int(rate * n)) is repeated,
    each once: Wu et al. 2022, ESimCSE, on sub-words. ``seed`` decides how many and which.

    Example:
        >>> repeat_tokens([0, 7, 8, 9, 1], 0.4, special_ids=(0, 1), seed=5)
        [0, 7, 8, 8, 9, 9, 1]
    """
    generator = random.Random(seed)
    words = [i for i, token in enumerate(ids) if token not in special_ids]
    count = generator.randint(0, max(2, int(rate * len(words))))
    chosen = set(generator.sample(words, min(count, len(words))))
    return [token for i, token in enumerate(ids) for _ in range(1 + (i in chosen))]

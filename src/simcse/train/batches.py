"""How the sentences of a batch are embedded: which of them together, and in which way.

A batch has up to four *columns* of sentences: ``anchors``, ``positives``, ``negatives`` (the hard
ones) and ``clean``, the anchors once more where they are wanted without dropout.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from simcse.io.records import Example
from simcse.model.encoder import SentenceEncoder
from simcse.text import TokenBatch, Tokenizer, pack
from simcse.train.processes import Processes

Columns = dict[str, list[str]]
Ids = list[int]


def columns(rows: Sequence[Example]) -> Columns:
    """Return anchors, positives and hard negatives of rows; an anchor alone is its own positive.

    ``clean`` is not among them: its texts are the anchors'.
    """
    return {
        "anchors": [row.anchor for row in rows],
        "positives": [row.anchor if row.positive is None else row.positive for row in rows],
        "negatives": [text for row in rows for text in row.negatives],
    }


@dataclass(frozen=True)
class Pass:
    """Columns that are embedded together.

    Attributes:
        columns: which.
        encoder: by which encoder.
        dropout: whether with the backbone's dropout, while training.
        rate: that of every dropout; ``None`` leaves each its own.
    """

    columns: tuple[str, ...]
    encoder: SentenceEncoder
    dropout: bool = True
    rate: float | None = None

    def embed(self, batch: TokenBatch) -> Tensor:
        """Embed sentences of these columns: (n, D) in the batch's own order."""
        backbone, training = self.encoder.backbone, self.encoder.training
        if self.rate is not None:
            backbone.set_dropout(self.rate)
        backbone.train(training and self.dropout)
        embedded = self.encoder.embed(batch)
        backbone.train(training)
        return embedded


Piece = list[tuple[Pass, TokenBatch]]


def embed(piece: Piece) -> Tensor:
    """Embed a piece of a batch: (n, D), pass after pass, each in its batch's own order."""
    return torch.cat([way.embed(batch) for way, batch in piece])


@dataclass(frozen=True)
class Batch:
    """One process's share of a batch, tokenized for each pass.

    Attributes:
        whole: all of it.
        sizes: sentences of each column.
    """

    whole: Piece
    sizes: dict[str, int]

    def pieces(self, tokens: int) -> list[Piece]:
        """Cut into pieces of at most so many tokens, or of one sentence that has more."""
        if sum(len(batch.input_ids) for _, batch in self.whole) <= tokens:
            return [self.whole]
        return [[(way, part)] for way, batch in self.whole for part in batch.split(tokens)]

    def unsort(self, embedded: Tensor) -> dict[str, Tensor]:
        """Bring the embeddings of all pieces, one after another, to columns in the rows' order."""
        found: dict[str, Tensor] = {}
        parts = torch.split(embedded, [len(batch.lengths) for _, batch in self.whole])
        for (way, batch), part in zip(self.whole, parts, strict=True):
            sizes = [self.sizes[name] for name in way.columns]
            found |= zip(way.columns, torch.split(batch.unsort(part), sizes), strict=True)
        return found


def tokenize(
    passes: Sequence[Pass],
    rows: Sequence[Example],
    tokenizer: Tokenizer,
    processes: Processes,
    *,
    change: Callable[[Ids, int], Ids] | None = None,
) -> Batch:
    """Tokenize this process's share, at least one row: each sentence has its number in the batch.

    So it meets the same dropout masks, however many processes share the batch.

    Args:
        passes: who embeds which columns; a column that no pass names is left out.
        rows: those of all processes.
        tokenizer: makes the ids.
        processes: those that share the rows.
        change: what becomes of a positive's ids, given its number.
    """
    own, before, every = (
        columns(part) for part in (processes.share(rows), processes.before(rows), rows)
    )
    given = iter(tokenizer.ids(list(itertools.chain.from_iterable(own.values()))))
    tokens: dict[str, list[Ids]] = {}
    numbers: dict[str, range] = {}
    done = 0
    for name, texts in own.items():
        tokens[name] = list(itertools.islice(given, len(texts)))
        numbers[name] = range(done + len(before[name]), done + len(before[name]) + len(texts))
        done += len(every[name])
    if change is not None:
        paired = zip(tokens["positives"], numbers["positives"], strict=True)
        tokens["positives"] = [change(*pair) for pair in paired]
    tokens["clean"], numbers["clean"] = tokens["anchors"], numbers["anchors"]
    whole = [(way, _pack(way, tokens, numbers)) for way in passes]
    return Batch(whole, {name: len(ids) for name, ids in tokens.items()})


def _pack(way: Pass, tokens: dict[str, list[Ids]], numbers: dict[str, range]) -> TokenBatch:
    batch = pack([ids for name in way.columns for ids in tokens[name]])
    order = torch.tensor([number for name in way.columns for number in numbers[name]])
    return replace(batch, original_index=order[batch.original_index]).to(way.encoder.device)

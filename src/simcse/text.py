"""Sentences -> `TokenBatch`: tokens of all sentences in one row, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from simcse.errors import DataError
from simcse.io.files import clean_text

Truncation = Literal["error", "warn", "truncate"]


@dataclass(frozen=True)
class TokenBatch:
    """B sentences as one row of T tokens, shortest sentence first.

    Sorting makes sentences of similar length neighbors, so attention can treat them as one
    dense block. `unsort` brings rows computed here back to the caller's order.
    """

    input_ids: Tensor  # (T,) token ids, int64
    lengths: tuple[int, ...]  # B token counts, ascending
    original_index: Tensor  # (B,) int64; row i here is the caller's sentence original_index[i]

    @property
    def positions(self) -> Tensor:
        """(T,) position of each token in its own sentence, from 0."""
        lengths = torch.tensor(self.lengths, device=self.input_ids.device)
        first = lengths.cumsum(0) - lengths  # (B,)
        tokens = torch.arange(len(self.input_ids), device=lengths.device)
        return tokens - first.repeat_interleave(lengths)

    @property
    def sentences(self) -> Tensor:
        """(T,) the caller's number of each token's sentence."""
        return self.original_index.repeat_interleave(
            torch.tensor(self.lengths, device=self.original_index.device), dim=0
        )

    def split(self, tokens: int) -> list["TokenBatch"]:
        """Split into batches of at most ``tokens`` tokens, or of one sentence that has more."""
        lengths: list[list[int]] = []  # of each batch
        for length in self.lengths:
            if not lengths or sum(lengths[-1]) + length > tokens:
                lengths.append([])
            lengths[-1].append(length)
        ids = torch.split(self.input_ids, [sum(each) for each in lengths])
        order = torch.split(self.original_index, [len(each) for each in lengths])
        return [TokenBatch(*each) for each in zip(ids, map(tuple, lengths), order, strict=True)]

    def unsort(self, rows: Tensor) -> Tensor:
        """Bring rows (B, ...) from this batch's order to the caller's."""
        return rows[torch.argsort(self.original_index)]

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch with its tensors on ``device``."""
        return TokenBatch(self.input_ids.to(device), self.lengths, self.original_index.to(device))


def pack(sentences: Sequence[Sequence[int]]) -> TokenBatch:
    """Pack token id lists into one `TokenBatch`; there must be at least one.

    Raises:
        DataError: a list is empty, so it has no hidden states to pool.
    """
    if not all(sentences):
        raise DataError("a sentence has no tokens, and the tokenizer adds none of its own")
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
    flat = [token for i in order for token in sentences[i]]
    return TokenBatch(
        input_ids=torch.tensor(flat, dtype=torch.int64),
        lengths=tuple(len(sentences[i]) for i in order),
        original_index=torch.tensor(order, dtype=torch.int64),
    )


class Tokenizer:
    """A Hugging Face tokenizer with one length limit, which counts what it truncates.

    Attributes:
        max_length: limit in tokens, special tokens included.
        seen: sentences tokenized so far.
        truncated: number of them that were truncated.
        tokens: number of their tokens.
    """

    def __init__(self, tokenizer: Any, *, max_length: int) -> None:  # noqa: ANN401 - HF has no common type
        self.hf_tokenizer = tokenizer
        self.max_length = max_length
        self.seen = 0
        self.truncated = 0
        self.tokens = 0

    def ids(self, texts: Sequence[str], *, truncation: Truncation = "truncate") -> list[list[int]]:
        """Tokenize sentences to id lists of at most `max_length`, special tokens included.

        Raises:
            DataError: ``truncation`` is "error" and a sentence is longer than `max_length`.
        """
        cleaned = [clean_text(text) for text in texts]
        rows: list[list[int]] = self._call(cleaned, truncation=False)
        long = [i for i, row in enumerate(rows) if len(row) > self.max_length]
        if long and truncation == "error":
            raise DataError(
                f"sentence {long[0]} has {len(rows[long[0]])} tokens, the limit is "
                f"{self.max_length}; {len(long)} of {len(rows)} sentences are too long"
            )
        if long:
            short = self._call(
                [cleaned[i] for i in long], truncation=True, max_length=self.max_length
            )
            for i, row in zip(long, short, strict=True):
                rows[i] = row
        self.seen += len(rows)
        self.truncated += len(long)
        self.tokens += sum(map(len, rows))
        return rows

    def __call__(self, texts: Sequence[str]) -> TokenBatch:
        """Tokenize and pack, truncating what is too long."""
        return pack(self.ids(texts))

    def _call(self, texts: list[str], **options: Any) -> list[list[int]]:  # noqa: ANN401 - passed through
        encoded = self.hf_tokenizer(
            texts,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
            **options,
        )
        rows: list[list[int]] = encoded["input_ids"]
        return rows

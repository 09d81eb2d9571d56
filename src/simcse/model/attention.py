"""Attention over packed sentences, registered with transformers under the name `PACKED`.

Any architecture that calls transformers' attention interface runs packed without a rewrite:
it sees one row of T tokens, and this function lets each sentence attend to itself only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from simcse.model.dropout import dropout as drop

PACKED = "simcse_packed"
STEP = 8  # lengths are rounded up to a multiple of it, in the attention only


@dataclass(frozen=True)
class Layout:
    """Where tokens stand while they attend: in dense blocks of sentences of similar length.

    One block a length would mean dozens of tiny matrix products; rounding lengths up to a
    multiple of `STEP` leaves a few large ones, at the price of some masked places.

    Attributes:
        blocks: (number of sentences, length) of each block, in row order.
        tokens: (P,) the token at each place; a place without one repeats a token of its sentence.
        places: (T,) the place of each token.
        masks: for each block (b, 1, 1, L) bool, the places that hold a token.
    """

    blocks: tuple[tuple[int, int], ...]
    tokens: Tensor
    places: Tensor
    masks: tuple[Tensor, ...]


def lay_out(lengths: Sequence[int], device: torch.device) -> Layout:
    """Plan the blocks for sentences of ascending ``lengths``, packed one after another."""
    length = torch.tensor(lengths, device=device)  # (B,)
    padded = (length + STEP - 1) // STEP * STEP  # (B,)
    sentence = torch.repeat_interleave(padded)  # (P,)
    position = torch.arange(len(sentence), device=device) - (padded.cumsum(0) - padded)[sentence]
    holds = position < length[sentence]  # (P,)
    first = length.cumsum(0) - length  # (B,) each sentence's first token
    tokens = first[sentence] + torch.where(holds, position, 0)
    sizes, counts = torch.unique_consecutive(padded, return_counts=True)
    blocks = tuple(zip(counts.tolist(), sizes.tolist(), strict=True))
    per_block = torch.split(holds, [count * size for count, size in blocks])
    masks = (held.view(-1, 1, 1, size) for held, (_, size) in zip(per_block, blocks, strict=True))
    return Layout(blocks, tokens, holds.nonzero().squeeze(1), tuple(masks))


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    layout: Layout,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401 - architectures pass more than they need
) -> tuple[Tensor, None]:
    """Attend within each sentence: query, key, value (1, H, T, Dh) -> (1, T, H, Dh).

    Args:
        module: the calling attention module (part of transformers' interface).
        query: queries of all heads.
        key: keys.
        value: values.
        attention_mask: always ``None``; the layout says which tokens belong together.
        layout: the blocks, from `lay_out`.
        scaling: factor on the scores.
        dropout: rate on the attention weights.
        sliding_window: tokens further apart than this minus one do not see each other.
    """
    sizes = [count * length for count, length in layout.blocks]
    placed = (_place(x[0].transpose(0, 1), layout) for x in (query, key, value))
    pieces = zip(*(torch.split(x, sizes) for x in placed), strict=True)  # each (b * L, H, Dh)
    outputs = []
    for (count, length), mask, qkv in zip(layout.blocks, layout.masks, pieces, strict=True):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in qkv)  # (b, H, L, Dh)
        seen = mask if sliding_window is None else _within(mask, sliding_window)
        outputs.append(_attend(q, k, v, seen, scaling=scaling, rate=dropout))
    return _take_back(torch.cat(outputs), layout).unsqueeze(0), None  # (1, T, H, Dh)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, *, scaling: float, rate: float
) -> Tensor:
    """Dense attention in one block: (b, H, L, Dh), mask (b, 1, 1 or L, L) -> (b * L, H, Dh)."""
    if rate == 0 and not q.requires_grad:
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)
    else:  # torch's fused CPU kernel has no dropout and a slow backward
        scores = (q * scaling) @ k.transpose(2, 3)  # (b, H, L, L)
        weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
        mixed = (drop(weights, rate) if rate > 0 else weights) @ v
    return mixed.transpose(1, 2).flatten(0, 1)  # (b * L, H, Dh)


class _Place(torch.autograd.Function):
    """Rows of tokens (T, ...) to rows of places (P, ...).

    Empty places repeat a token, are masked as keys and dropped as queries, so their gradient is
    zero and the backward is a plain selection; indexing would add up row by row.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: Layout) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.places = layout.places
        return rows.index_select(0, layout.tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's own
        return gradient.index_select(0, ctx.places), None


class _TakeBack(torch.autograd.Function):
    """Rows of places (P, ...) to rows of tokens (T, ...)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, layout: Layout) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.places, ctx.count = layout.places, len(rows)
        return rows.index_select(0, layout.places)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - torch's own
        full = gradient.new_zeros(ctx.count, *gradient.shape[1:])
        return full.index_copy_(0, ctx.places, gradient), None


def _place(rows: Tensor, layout: Layout) -> Tensor:
    placed: Tensor = _Place.apply(rows, layout)  # type: ignore[no-untyped-call]
    return placed


def _take_back(rows: Tensor, layout: Layout) -> Tensor:
    taken: Tensor = _TakeBack.apply(rows, layout)  # type: ignore[no-untyped-call]
    return taken


def _within(mask: Tensor, sliding_window: int) -> Tensor:
    """Narrow a mask (b, 1, 1, L) to pairs less than the window apart: (b, 1, L, L).

    Every place sees itself, or an empty one far from all tokens would see nothing: NaN.
    """
    position = torch.arange(mask.shape[-1], device=mask.device)
    distance = (position[:, None] - position[None, :]).abs()  # (L, L)
    return mask & (distance < sliding_window) | (distance == 0)


def register() -> None:
    """Make `PACKED` known to transformers; doing it again changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)

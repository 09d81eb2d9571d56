"""Attention over packed sentences, registered with transformers under the name `PACKED`.

Any architecture that calls transformers' attention interface runs packed without a rewrite:
it sees one row of T tokens, and this function lets each sentence attend to itself only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from simcse.model.dropout import Noise, apply_mask, keep_mask, keep_scale

PACKED = "simcse_packed"
# Lengths are rounded up to a multiple of it, in the attention only; softmax over rows of bf16 that
# are not a multiple of 16 wide is slower than over the next wider ones.
STEP = 16
BLOCK_SIZES = 8  # between two powers of two, as `rounded_up` takes it


def rounded_up(count: int, steps: int) -> int:
    """Round up to one of at most ``steps`` sizes between two powers of two.

    oneDNN compiles its kernels for every new size of a matrix, which takes as long as a few
    products with it; a few sizes soon are all known.
    """
    step = 1 << max(0, count.bit_length() - steps.bit_length())
    return -(-count // step) * step


@dataclass(frozen=True)
class Layout:
    """Where tokens stand while they attend: in dense blocks of sentences of similar length.

    One block a length would mean dozens of tiny matrix products; rounding lengths up to a
    multiple of `STEP` leaves a few large ones, at the price of some empty places. Blocks have a
    few empty sentences, too, so that their sizes recur.

    Attributes:
        blocks: (number of sentences, length) of each block, in row order.
        tokens: (P,) the token at each place; an empty place has any token.
        places: (T,) the place of each token.
        empty: (P - T,) the places without a token.
        biases: for each block (b, 1, 1, L), added to the scores: -inf where a place is not seen.
        noise: what dropout draws from.
        keys: for each block (b, L), the tokens' keys of that noise; none while not training.
    """

    blocks: tuple[tuple[int, int], ...]
    tokens: Tensor
    places: Tensor
    empty: Tensor
    biases: tuple[Tensor, ...]
    noise: Noise
    keys: tuple[Tensor, ...]

    def split(self, placed: Tensor) -> Iterator[Tensor]:
        """Cut rows of places (P, H, Dh) into views (b, H, L, Dh), one a block."""
        for piece, block in _pieces(placed, self.blocks):
            yield piece.view(*block, *piece.shape[1:]).transpose(1, 2)

    def place(self, rows: Tensor) -> list[Tensor]:
        """Bring rows of tokens (T or more, H, Dh) to the blocks, each a copy (b * H, L, Dh)."""
        return [block.flatten(0, 1) for block in self.split(rows.index_select(0, self.tokens))]

    def take_back(self, placed: Tensor, count: int) -> Tensor:
        """Bring rows of places (P, H, Dh) to ``count`` rows; those after the T tokens are 0."""
        rows = placed.new_empty(count, *placed.shape[1:])
        rows[len(self.places) :] = 0.0
        torch.index_select(placed, 0, self.places, out=rows[: len(self.places)])
        return rows


def lay_out(
    lengths: Sequence[int],
    device: torch.device,
    *,
    noise: Noise | None = None,
    keys: Tensor | None = None,
) -> Layout:
    """Plan the blocks for sentences of ascending ``lengths``, packed one after another.

    Args:
        lengths: tokens of each sentence.
        device: where the tokens are.
        noise: what dropout draws from.
        keys: (T,) the tokens' keys of it.
    """
    counts = Counter(-(-length // STEP) * STEP for length in lengths)
    blocks = tuple((rounded_up(count, BLOCK_SIZES), size) for size, count in counts.items())
    held: list[int] = []  # tokens of each sentence, empty ones among them
    given = iter(lengths)
    for (rows, _), count in zip(blocks, counts.values(), strict=True):
        held += [*islice(given, count), *[0] * (rows - count)]
    sizes = [size for rows, size in blocks for _ in range(rows)]
    length, padded = torch.tensor(held), torch.tensor(sizes)  # (S,)
    sentence = torch.repeat_interleave(padded)  # (P,)
    position = torch.arange(len(sentence)) - (padded.cumsum(0) - padded)[sentence]
    holds = position < length[sentence]  # (P,)
    first = length.cumsum(0) - length  # (S,) each sentence's first token
    tokens = torch.where(holds, first[sentence] + position, 0).to(device)
    seen = holds | (position == 0)  # even an empty sentence sees one place, or all is NaN
    bias = torch.zeros(len(seen)).masked_fill_(~seen, float("-inf")).to(device)
    return Layout(
        blocks=blocks,
        tokens=tokens,
        places=holds.nonzero().squeeze(1).to(device),
        empty=(~holds).nonzero().squeeze(1).to(device),
        biases=tuple(piece.view(-1, 1, 1, size) for piece, (_, size) in _pieces(bias, blocks)),
        noise=noise or Noise(),
        keys=()
        if keys is None
        else tuple(piece.view(block) for piece, block in _pieces(keys[tokens], blocks)),
    )


def _pieces(
    placed: Tensor, blocks: Sequence[tuple[int, int]]
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    """Cut rows of places (P, ...) at the blocks' bounds."""
    pieces = torch.split(placed, [count * length for count, length in blocks])
    return zip(pieces, blocks, strict=True)


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
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # each (T, H, Dh)
    biases = [bias.to(query.dtype) for bias in layout.biases]
    if sliding_window is not None:
        biases = [_within(bias, sliding_window) for bias in biases]
    mixed: Tensor
    if dropout > 0 or query.requires_grad:
        mixed = _Attention.apply(q, k, v, layout, biases, scaling, dropout)  # type: ignore[no-untyped-call]
    else:
        mixed = _attend(q, k, v, layout, biases, scaling)
    return mixed.unsqueeze(0), None  # (1, T, H, Dh)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    biases: Sequence[Tensor],
    scaling: float,
) -> Tensor:
    """Attention by torch's fused kernel, for rows of tokens (T, H, Dh)."""
    mixed = query.new_empty(len(layout.tokens), *query.shape[1:])  # (P, H, Dh)
    placed = (layout.split(x.index_select(0, layout.tokens)) for x in (query, key, value))
    for block, q, k, v, bias in zip(layout.split(mixed), *placed, biases, strict=True):
        block.copy_(nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=scaling))
    return layout.take_back(mixed, len(query))


class _Attention(torch.autograd.Function):
    """Attention with gradient and dropout, for rows of tokens (T, H, Dh).

    torch's fused CPU kernel has no dropout and a slow backward. Here the scores are passed over
    as rarely as can be: the factor goes to the queries, and what dropout scales up is the
    values, which are smaller than the weights.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        query: Tensor,
        key: Tensor,
        value: Tensor,
        layout: Layout,
        biases: Sequence[Tensor],
        scaling: float,
        rate: float,
    ) -> Tensor:
        site = layout.noise.next_site() if rate > 0 else 0
        mixed = query.new_empty(len(layout.tokens), *query.shape[1:])  # (P, H, Dh)
        placed = (layout.place(x) for x in (query, key, value))
        saved: list[Tensor] = []
        for i, (block, q, k, v) in enumerate(zip(layout.split(mixed), *placed, strict=True)):
            scores = torch.bmm(q.mul_(scaling), k.transpose(1, 2))  # (b * H, L, L)
            scores.view(*block.shape[:-1], -1).add_(biases[i])
            weights = scores.softmax(-1)
            saved += [q, k, v, weights]
            if rate > 0:
                v.mul_(keep_scale(rate))
                keep = keep_mask(layout.keys[i], site, weights.shape, rate)
                saved.append(keep)
                weights = apply_mask(weights, keep)
            block.copy_(torch.bmm(weights, v).view(block.shape))
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.scaling, ctx.rate = layout, scaling, rate
        return layout.take_back(mixed, len(query))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        layout, rate = ctx.layout, ctx.rate
        placed = gradient.index_select(0, layout.tokens).index_fill_(0, layout.empty, 0.0)
        results = [torch.empty_like(placed) for _ in range(3)]  # of query, key, value
        saved = iter(ctx.saved_tensors)
        for block, dq, dk, dv in zip(*(layout.split(x) for x in (placed, *results)), strict=True):
            g = block.flatten(0, 1)  # (b * H, L, Dh)
            q, k, v, weights = (next(saved) for _ in range(4))
            g_weights, dropped = torch.bmm(g, v.transpose(1, 2)), weights  # (b * H, L, L)
            if rate > 0:
                keep = next(saved)
                g_weights, dropped = apply_mask(g_weights, keep), apply_mask(weights, keep)
            g_scores = torch._softmax_backward_data(g_weights, weights, -1, weights.dtype)
            dq.copy_(torch.bmm(g_scores, k).mul_(ctx.scaling).view(dq.shape))
            dk.copy_(torch.bmm(g_scores.transpose(1, 2), q).view(dk.shape))
            g_values = torch.bmm(dropped.transpose(1, 2), g)
            dv.copy_((g_values.mul_(keep_scale(rate)) if rate > 0 else g_values).view(dv.shape))
        rows = (layout.take_back(x, len(gradient)) for x in results)
        return (*rows, None, None, None, None)


def _within(bias: Tensor, sliding_window: int) -> Tensor:
    """Narrow a bias (b, 1, 1, L) to pairs less than the window apart: (b, 1, L, L).

    Every place sees itself, or an empty one far from all tokens would see nothing: NaN.
    """
    position = torch.arange(bias.shape[-1], device=bias.device)
    distance = (position[:, None] - position[None, :]).abs()  # (L, L)
    narrowed = bias.masked_fill(distance >= sliding_window, float("-inf"))
    return narrowed.masked_fill(distance == 0, 0.0)


def register() -> None:
    """Make `PACKED` known to transformers; doing it again changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)

"""Attention over packed sentences, registered with transformers under the name `PACKED`.

Any architecture that calls transformers' attention interface runs packed without a rewrite:
it sees one row of T tokens, and this function lets each sentence attend to itself only.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from simcse.model.dropout import DropoutRng, apply_mask, keep_mask, keep_scale

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
        dropout_rng: what dropout draws from.
        keys: for each block (b, L), the tokens' keys of that dropout_rng; none while not training.
    """

    blocks: tuple[tuple[int, int], ...]
    tokens: Tensor
    places: Tensor
    empty: Tensor
    biases: tuple[Tensor, ...]
    dropout_rng: DropoutRng
    keys: tuple[Tensor, ...]
    _by_head: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def lone(self) -> bool:
        """Whether the one sentence stands as it came, so that nothing has to be moved."""
        return len(self.blocks) == 1 and self.blocks[0] == (1, len(self.places))

    def by_head(self, heads: int, step: int | None = None) -> tuple[Tensor, Tensor]:
        """Say where rows of (T * H, Dh) go when each block holds (b, H, L) of them.

        Args:
            heads: H.
            step: rows from one token to the next, if they are more than H.

        Returns:
            (P * H,) the row at each spot, and (P, H) the spot of each place and head.
        """
        step = step or heads
        if (heads, step) not in self._by_head:
            of_head = torch.arange(heads, device=self.tokens.device)
            rows, spots, first = [], [], 0
            for tokens, (count, length) in _pieces(self.tokens, self.blocks):
                placed = tokens.view(count, 1, length) * step + of_head[:, None]
                rows.append(placed.flatten())
                spot = torch.arange(placed.numel(), device=placed.device).view_as(placed)
                spots.append((spot + first).transpose(1, 2).reshape(-1, heads))
                first += placed.numel()
            self._by_head[heads, step] = torch.cat(rows), torch.cat(spots)
        return self._by_head[heads, step]

    def split(self, spots: Tensor, heads: int) -> list[Tensor]:
        """Cut spots (P * H, Dh) into views (b * H, L, Dh), one a block."""
        sizes = [count * heads * length for count, length in self.blocks]
        pieces = zip(torch.split(spots, sizes), self.blocks, strict=True)
        return [piece.view(-1, length, piece.shape[-1]) for piece, (_, length) in pieces]

    def place(self, rows: Tensor) -> Tensor:
        """Bring rows of tokens (T or more, H, Dh) to their spots (P * H, Dh).

        Queries, keys and values out of one product have each other's rows between them.
        """
        count, heads, size = rows.shape
        between, across, within = rows.stride()
        if (across, within) != (size, 1) or between % size:
            rows, between = rows.contiguous(), heads * size
        step = between // size
        by_head = rows.as_strided(((count - 1) * step + heads, size), (size, 1))
        return by_head.index_select(0, self.by_head(heads, step)[0])

    def take_back(self, spots: Tensor, count: int, heads: int) -> Tensor:
        """Bring spots (P * H, Dh) to ``count`` rows (., H, Dh); those after the T tokens are 0."""
        source = self.by_head(heads)[1][self.places].flatten()  # (T * H,)
        return _taken(spots, source, count * heads).view(count, heads, -1)


def lay_out(
    lengths: Sequence[int],
    device: torch.device,
    *,
    dropout_rng: DropoutRng | None = None,
    keys: Tensor | None = None,
) -> Layout:
    """Plan the blocks for sentences of ascending ``lengths``, packed one after another.

    Args:
        lengths: tokens of each sentence.
        device: where the tokens are.
        dropout_rng: what dropout draws from.
        keys: (T,) the tokens' keys of it.
    """
    if len(lengths) == 1 and keys is None:
        return _stay(lengths[0], device, dropout_rng or DropoutRng())
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
        dropout_rng=dropout_rng or DropoutRng(),
        keys=()
        if keys is None
        else tuple(piece.view(block) for piece, block in _pieces(keys[tokens], blocks)),
    )


def _stay(length: int, device: torch.device, dropout_rng: DropoutRng) -> Layout:
    """Leave one sentence where it is."""
    tokens = torch.arange(length, device=device)
    all_seen = torch.zeros(1, 1, 1, length, device=device)
    return Layout(((1, length),), tokens, tokens, tokens[:0], (all_seen,), dropout_rng, ())


def _taken(placed: Tensor, source: Tensor, count: int) -> Tensor:
    """Take rows by their numbers (T,) and zeros behind them: (P, ...) -> (``count``, ...)."""
    rows = placed.new_empty(count, *placed.shape[1:])
    rows[len(source) :] = 0.0
    torch.index_select(placed, 0, source, out=rows[: len(source)])
    return rows


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
        mixed = attend(q, k, v, layout, biases, scaling)
    return mixed.unsqueeze(0), None  # (1, T, H, Dh)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    biases: Sequence[Tensor],
    scaling: float,
) -> Tensor:
    """Attention by torch's fused kernel, for rows of tokens (T, H, Dh)."""
    count, heads, size = query.shape
    if layout.lone:
        return _attend_alone(query, key, value, len(layout.places), biases[0], scaling)
    placed = (layout.split(layout.place(x), heads) for x in (query, key, value))
    mixed = []
    for q, k, v, bias in zip(*placed, biases, strict=True):
        q, k, v = (x.unflatten(0, (-1, heads)) for x in (q, k, v))  # each (b, H, L, Dh)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=scaling)
        mixed.append(attended.transpose(1, 2).reshape(-1, heads, size))
    places = mixed[0] if len(mixed) == 1 else torch.cat(mixed)  # (P, H, Dh)
    return _taken(places, layout.places, count)


def _attend_alone(
    query: Tensor, key: Tensor, value: Tensor, length: int, bias: Tensor, scaling: float
) -> Tensor:
    """Do what `attend` does for one sentence of ``length`` tokens, with filler behind it or not."""
    q, k, v = (x[:length].transpose(0, 1).unsqueeze(0) for x in (query, key, value))
    narrowed = bias if bias.shape[2] > 1 else None  # else every token sees every other
    attended = nn.functional.scaled_dot_product_attention(q, k, v, narrowed, scale=scaling)
    rows = attended[0].transpose(0, 1)  # (length, H, Dh)
    filler = len(query) - length
    return nn.functional.pad(rows, (0, 0, 0, 0, 0, filler)) if filler else rows


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
        site = layout.dropout_rng.next_site() if rate > 0 else 0
        heads = query.shape[1]
        spots = [layout.place(x) for x in (query, key, value)]
        spots[0].mul_(scaling)
        if rate > 0:
            spots[2].mul_(keep_scale(rate))
        mixed = torch.empty_like(spots[0])  # (P * H, Dh)
        saved: list[Tensor] = []
        for i, (m, q, k, v) in enumerate(
            zip(*(layout.split(x, heads) for x in (mixed, *spots)), strict=True)
        ):
            scores = torch.bmm(q, k.transpose(1, 2))  # (b * H, L, L)
            scores.view(-1, heads, *scores.shape[1:]).add_(biases[i])
            weights = scores.softmax(-1)
            saved += [q, k, v, weights]
            if rate > 0:
                keep = keep_mask(layout.keys[i], site, weights.shape, rate)
                saved.append(keep)
                weights = apply_mask(weights, keep)
            torch.bmm(weights, v, out=m)
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.scaling, ctx.rate = layout, scaling, rate
        return layout.take_back(mixed, len(query), heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        layout, rate, (count, heads) = ctx.layout, ctx.rate, gradient.shape[:2]
        placed = layout.place(gradient)  # (P * H, Dh)
        placed.index_fill_(0, layout.by_head(heads)[1][layout.empty].flatten(), 0.0)
        results = [torch.empty_like(placed) for _ in range(3)]  # of query, key, value
        saved = iter(ctx.saved_tensors)
        for g, dq, dk, dv in zip(
            *(layout.split(x, heads) for x in (placed, *results)), strict=True
        ):
            q, k, v, weights = (next(saved) for _ in range(4))
            g_weights, dropped = torch.bmm(g, v.transpose(1, 2)), weights  # (b * H, L, L)
            if rate > 0:
                keep = next(saved)
                g_weights, dropped = apply_mask(g_weights, keep), apply_mask(weights, keep)
            g_scores = torch._softmax_backward_data(g_weights, weights, -1, weights.dtype)
            torch.bmm(g_scores, k, out=dq)
            torch.bmm(g_scores.transpose(1, 2), q, out=dk)
            torch.bmm(dropped.transpose(1, 2), g, out=dv)
        results[0].mul_(ctx.scaling)
        if rate > 0:
            results[2].mul_(keep_scale(rate))
        return (*(layout.take_back(x, count, heads) for x in results), None, None, None, None)


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

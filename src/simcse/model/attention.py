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
from simcse.model.kernels import softmax_backward

PACKED = "simcse_packed"
# Lengths are rounded up to a multiple of it, in the attention only; softmax over rows of bf16 that
# are not a multiple of 16 wide is slower than over the next wider ones.
LENGTH_STEP = 16
BLOCK_SIZES = 8  # between two powers of two, as `rounded_up` takes it


def rounded_up(count: int, steps: int) -> int:
    """Round up to one of at most ``steps`` sizes between two powers of two.

    oneDNN compiles its kernels for every new size of a matrix, which takes as long as a few
    products with it; with few sizes all of them are soon compiled.
    """
    step = 1 << max(0, count.bit_length() - steps.bit_length())
    return -(-count // step) * step


@dataclass(frozen=True)
class PackingPlan:
    """The slots of tokens while they attend: dense blocks of sentences of similar length.

    One block a length would mean dozens of tiny matrix products; rounding lengths up to a
    multiple of `LENGTH_STEP` leaves a few large ones, at the price of some empty slots. Blocks
    have a few empty sentences, too, so that their sizes recur.
    """

    # (number of sentences, length) of each block, in row order; P slots in all.
    blocks: tuple[tuple[int, int], ...]
    tokens: Tensor  # (P,) the token in each slot; an empty slot has any token
    slots: Tensor  # (T,) the slot of each token
    empty: Tensor  # (P - T,) the slots without a token
    # For each block (b, 1, 1, L), added to the scores: -inf where a slot is hidden.
    biases: tuple[Tensor, ...]
    dropout_rng: DropoutRng  # the random numbers of dropout
    # For each block (b, L), the tokens' seeds of it; none while not training.
    token_seeds: tuple[Tensor, ...]
    _by_head: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether there is one sentence, which needs no moving."""
        return len(self.blocks) == 1 and self.blocks[0] == (1, len(self.slots))

    def by_head(self, heads: int, step: int | None = None) -> tuple[Tensor, Tensor]:
        """Number the slots of rows (T * H, Dh) when each block holds (b, H, L) of them.

        Returns the row in each slot (P * H,), and the slot of each token slot and head (P, H).
        From one token to the next there are ``step`` rows, by default H.
        """
        step = step or heads
        if (heads, step) not in self._by_head:
            head = torch.arange(heads, device=self.tokens.device)
            rows, slots, first = [], [], 0
            for tokens, (count, length) in _split_blocks(self.tokens, self.blocks):
                block = tokens.view(count, 1, length) * step + head[:, None]  # (b, H, L)
                rows.append(block.flatten())
                numbers = torch.arange(block.numel(), device=block.device).view_as(block)
                slots.append((numbers + first).transpose(1, 2).reshape(-1, heads))
                first += block.numel()
            self._by_head[heads, step] = torch.cat(rows), torch.cat(slots)
        return self._by_head[heads, step]

    def split(self, scattered: Tensor, heads: int) -> list[Tensor]:
        """Split slots (P * H, Dh) into views (b * H, L, Dh), one a block."""
        lengths = [count * heads * length for count, length in self.blocks]
        views = zip(torch.split(scattered, lengths), self.blocks, strict=True)
        return [view.view(-1, length, view.shape[-1]) for view, (_, length) in views]

    def scatter(self, rows: Tensor) -> Tensor:
        """Bring rows of tokens (T or more, H, Dh) to their slots (P * H, Dh).

        Queries, keys and values out of one product have each other's rows between them.
        """
        count, heads, size = rows.shape
        between, across, within = rows.stride()
        if (across, within) != (size, 1) or between % size:
            rows, between = rows.contiguous(), heads * size
        step = between // size
        by_head = rows.as_strided(((count - 1) * step + heads, size), (size, 1))
        return by_head.index_select(0, self.by_head(heads, step)[0])

    def gather(self, scattered: Tensor, count: int, heads: int) -> Tensor:
        """Bring slots (P * H, Dh) to ``count`` rows (., H, Dh); rows after the T tokens are 0."""
        source = self.by_head(heads)[1][self.slots].flatten()  # (T * H,)
        return _take_rows(scattered, source, count * heads).view(count, heads, -1)


def plan_packing(
    lengths: Sequence[int],
    device: torch.device,
    *,
    dropout_rng: DropoutRng | None = None,
    token_seeds: Tensor | None = None,
) -> PackingPlan:
    """Plan the blocks for B packed sentences of ascending ``lengths``; token_seeds is (T,)."""
    if len(lengths) == 1 and token_seeds is None:
        return _plan_single(lengths[0], device, dropout_rng or DropoutRng())
    counts = Counter(-(-length // LENGTH_STEP) * LENGTH_STEP for length in lengths)
    blocks = tuple((rounded_up(count, BLOCK_SIZES), size) for size, count in counts.items())
    held: list[int] = []  # tokens of each sentence, empty ones among them
    given = iter(lengths)
    for (rows, _), count in zip(blocks, counts.values(), strict=True):
        held += [*islice(given, count), *[0] * (rows - count)]
    length = torch.tensor(held)  # (S,)
    padded = torch.tensor([size for rows, size in blocks for _ in range(rows)])  # (S,)
    sentence = torch.repeat_interleave(padded)  # (P,)
    position = torch.arange(len(sentence)) - (padded.cumsum(0) - padded)[sentence]
    holds = position < length[sentence]  # (P,)
    first = length.cumsum(0) - length  # (S,) each sentence's first token
    tokens = torch.where(holds, first[sentence] + position, 0).to(device)
    visible = holds | (position == 0)  # an empty sentence sees one slot, or all would be NaN
    bias = torch.zeros(len(visible)).masked_fill_(~visible, float("-inf")).to(device)
    seeds = () if token_seeds is None else _split_blocks(token_seeds[tokens], blocks)
    return PackingPlan(
        blocks=blocks,
        tokens=tokens,
        slots=holds.nonzero().squeeze(1).to(device),
        empty=(~holds).nonzero().squeeze(1).to(device),
        biases=tuple(each.view(-1, 1, 1, size) for each, (_, size) in _split_blocks(bias, blocks)),
        dropout_rng=dropout_rng or DropoutRng(),
        token_seeds=tuple(each.view(block) for each, block in seeds),
    )


def _plan_single(length: int, device: torch.device, dropout_rng: DropoutRng) -> PackingPlan:
    tokens = torch.arange(length, device=device)
    all_visible = torch.zeros(1, 1, 1, length, device=device)
    return PackingPlan(((1, length),), tokens, tokens, tokens[:0], (all_visible,), dropout_rng, ())


def _take_rows(rows: Tensor, source: Tensor, count: int) -> Tensor:
    """Take rows by their numbers (T,) and zeros behind them: (P, ...) -> (``count``, ...)."""
    taken = rows.new_empty(count, *rows.shape[1:])
    taken[len(source) :] = 0.0
    torch.index_select(rows, 0, source, out=taken[: len(source)])
    return taken


def _split_blocks(
    slots: Tensor, blocks: Sequence[tuple[int, int]]
) -> Iterator[tuple[Tensor, tuple[int, int]]]:
    return zip(torch.split(slots, [count * size for count, size in blocks]), blocks, strict=True)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    packing_plan: PackingPlan,
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,  # noqa: ANN401 - architectures pass more than they need
) -> tuple[Tensor, None]:
    """Attend within each sentence: query, key, value (1, H, T, Dh) -> (1, T, H, Dh).

    The arguments are those of transformers' interface and a plan, which replaces the mask. With
    a sliding window, tokens further apart than it minus one do not see each other.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # each (T, H, Dh)
    biases = [bias.to(query.dtype) for bias in packing_plan.biases]
    if sliding_window is not None:
        biases = [_narrow(bias, sliding_window) for bias in biases]
    mixed: Tensor
    if dropout > 0 or query.requires_grad:
        mixed = _Attention.apply(q, k, v, packing_plan, biases, scaling, dropout)  # type: ignore[no-untyped-call]
    else:
        mixed = attend(q, k, v, packing_plan, biases, scaling)
    return mixed.unsqueeze(0), None  # (1, T, H, Dh)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    plan: PackingPlan,
    biases: Sequence[Tensor],
    scaling: float,
) -> Tensor:
    """Attention by torch's fused kernel, for rows of tokens (T, H, Dh)."""
    count, heads, size = query.shape
    if plan.is_single:
        return _attend_single(query, key, value, len(plan.slots), biases[0], scaling)
    scattered = (plan.split(plan.scatter(x), heads) for x in (query, key, value))
    mixed = []
    for q, k, v, bias in zip(*scattered, biases, strict=True):
        q, k, v = (x.unflatten(0, (-1, heads)) for x in (q, k, v))  # each (b, H, L, Dh)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=scaling)
        mixed.append(attended.transpose(1, 2).reshape(-1, heads, size))
    joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed)  # (P, H, Dh)
    return _take_rows(joined, plan.slots, count)


def _attend_single(
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
    as rarely as can be: the factor goes to the queries, and dropout's factor to the values, which
    are smaller than the weights.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: PackingPlan,
        biases: Sequence[Tensor],
        scaling: float,
        rate: float,
    ) -> Tensor:
        layer_index = plan.dropout_rng.next_layer() if rate > 0 else 0
        heads = query.shape[1]
        scattered = [plan.scatter(x) for x in (query, key, value)]
        scattered[0].mul_(scaling)
        if rate > 0:
            scattered[2].mul_(keep_scale(rate))
        mixed = torch.empty_like(scattered[0])  # (P * H, Dh)
        saved: list[Tensor] = []
        for i, (m, q, k, v) in enumerate(
            zip(*(plan.split(x, heads) for x in (mixed, *scattered)), strict=True)
        ):
            scores = torch.bmm(q, k.transpose(1, 2))  # (b * H, L, L)
            scores.view(-1, heads, *scores.shape[1:]).add_(biases[i])
            weights = scores.softmax(-1)
            saved += [q, k, v, weights]
            if rate > 0:
                mask = keep_mask(plan.token_seeds[i], layer_index, weights.shape, rate)
                saved.append(mask)
                weights = apply_mask(weights, mask)
            torch.bmm(weights, v, out=m)
        ctx.save_for_backward(*saved)
        ctx.plan, ctx.scaling, ctx.rate = plan, scaling, rate
        return plan.gather(mixed, len(query), heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        plan, rate, (count, heads) = ctx.plan, ctx.rate, gradient.shape[:2]
        scattered = plan.scatter(gradient)  # (P * H, Dh)
        scattered.index_fill_(0, plan.by_head(heads)[1][plan.empty].flatten(), 0.0)
        results = [torch.empty_like(scattered) for _ in range(3)]  # of query, key, value
        saved = iter(ctx.saved_tensors)
        for g, dq, dk, dv in zip(
            *(plan.split(x, heads) for x in (scattered, *results)), strict=True
        ):
            q, k, v, weights = (next(saved) for _ in range(4))
            g_weights, dropped = torch.bmm(g, v.transpose(1, 2)), weights  # (b * H, L, L)
            if rate > 0:
                mask = next(saved)
                g_weights, dropped = apply_mask(g_weights, mask), apply_mask(weights, mask)
            g_scores = softmax_backward(g_weights, weights)
            torch.bmm(g_scores, k, out=dq)
            torch.bmm(g_scores.transpose(1, 2), q, out=dk)
            torch.bmm(dropped.transpose(1, 2), g, out=dv)
        results[0].mul_(ctx.scaling)
        if rate > 0:
            results[2].mul_(keep_scale(rate))
        return (*(plan.gather(x, count, heads) for x in results), None, None, None, None)


def _narrow(bias: Tensor, sliding_window: int) -> Tensor:
    """Narrow a bias (b, 1, 1, L) to pairs less than the window apart: (b, 1, L, L).

    Every slot sees itself, or an empty one far from all tokens would see nothing: NaN.
    """
    position = torch.arange(bias.shape[-1], device=bias.device)
    distance = (position[:, None] - position[None, :]).abs()  # (L, L)
    narrowed = bias.masked_fill(distance >= sliding_window, float("-inf"))
    return narrowed.masked_fill(distance == 0, 0.0)


def register() -> None:
    """Register `PACKED` with transformers; repeated calls change nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)

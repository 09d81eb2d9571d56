"""Dropout whose masks are a pure function of seed, step, sentence, position, layer and feature.

torch's own dropout on a CPU draws one number an element from a serial generator and takes a
third of a SimCSE step. Here each token has a 64-bit seed, and one hash of seed and counter serves
four elements: no state, no dependence on the number of threads or on which sentences share a
pass. The rate is rounded to a multiple of 2**-16, so 0.1 becomes 0.100006.
"""

from typing import Any

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16
_PER_WORD = 4  # 16-bit numbers in a 64-bit word
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a float
# SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)), (31, 1))


class DropoutRng:
    """The random numbers of a backbone's dropouts.

    Its dropout layers are numbered in the order of the forward pass, so two passes with one key
    and the same sentences use the same masks.

    Attributes:
        key: names the masks, see `dropout_key`; with ``None`` each pass draws one from torch's
            default generator.
        token_seeds: (A, L) seeds of the tokens as the pass lays them out, one row or padded.
    """

    def __init__(self) -> None:
        self.key: int | None = None
        self.token_seeds = torch.empty(0, 0, dtype=torch.int64)
        self._pass_key = self._layer_index = 0

    def begin(self, sentences: Tensor, positions: Tensor) -> Tensor:
        """Begin a pass: sentence numbers (T,) and positions (T,) -> seeds of the tokens (T,)."""
        drawn = torch.randint(2**62, ()) if self.key is None else self.key
        self._pass_key, self._layer_index = int(drawn), 0
        return seed_tokens(sentences, positions, self._pass_key)

    def next_layer(self) -> int:
        """Count one more dropout layer of this pass."""
        self._layer_index += 1
        return self._layer_index

    def mask(self, shape: torch.Size, rate: float) -> Tensor:
        """Draw the next layer's mask for values (A, ..., L, D); see `keep_mask`."""
        seeds = self.token_seeds
        if shape[-2] != seeds.shape[1] or shape[:-2].numel() % len(seeds):
            # not laid out as the tokens are: DeBERTa's table of relative positions
            numbers = torch.arange(shape[:-1].numel(), device=seeds.device)
            seeds = _hash(numbers * _GOLDEN + ~self._pass_key).view(-1, shape[-2])
        return keep_mask(seeds, self.next_layer(), shape, rate)


def seed_tokens(sentences: Tensor, positions: Tensor, key: int) -> Tensor:
    """Give each token a seed: sentence numbers (T,) and positions (T,) -> (T,) int64."""
    return _hash(((sentences << 32) + positions) * _GOLDEN + key)


def draw(token_seeds: Tensor, number: int, below: int) -> Tensor:
    """Draw an integer from 0 to ``below`` - 1 for each seed: (T,) -> (T,) int64.

    Draws of one seed with several numbers are independent; ``below`` is at most 2**24.
    """
    counter = torch.tensor(number, device=token_seeds.device) * _GOLDEN  # which wraps
    return ((_hash(token_seeds + counter) & ((1 << 38) - 1)) * below) >> 38


def dropout_key(seed: int, step: int, part: int = 0) -> int:
    """Name the masks of one part of a training step; ``part`` separates several passes."""
    key = torch.zeros((), dtype=torch.int64)
    for word in torch.tensor([seed, step, part]) + 1:
        key = _hash((key + word) * _GOLDEN)
    return int(key)


def keep_mask(token_seeds: Tensor, layer_index: int, shape: torch.Size, rate: float) -> Tensor:
    """Draw a mask: int16 of ``shape``, -1 (all bits set) where a value stays, else 0.

    Args:
        token_seeds: (A, L).
        layer_index: number of the dropout layer in the pass.
        shape: (A * M, L, D) or (A, M, L, D); M may be left out.
        rate: share of zeros, below 1.
    """
    words = -(-shape[-1] // _PER_WORD)
    middle = shape[:-2].numel() // len(token_seeds)
    numbers = torch.arange(max(middle, words), device=token_seeds.device)
    counter = (numbers[:middle, None, None] << 16) + numbers[:words] + (layer_index << 32)
    bits = _hash(token_seeds[:, None, :, None] + counter * _GOLDEN)  # (A, M, L, W)
    levels = bits.view(torch.int16)[..., : shape[-1]].reshape(shape)
    mask = torch.empty_like(levels)
    return torch.ge(levels, round(rate * _LEVELS) - _LEVELS // 2, out=mask).neg_()


def apply_mask(values: Tensor, mask: Tensor) -> Tensor:
    """Zero the values where ``mask``, from `keep_mask`, is 0, by their bits.

    Several times faster than a product with a mask of floats or a choice by booleans.
    """
    integers = _INTEGERS[values.dtype.itemsize]
    return (values.view(integers) & mask.to(integers)).view(values.dtype)


def dropout(values: Tensor, rate: float, dropout_rng: DropoutRng) -> Tensor:
    """Zero elements of (A, ..., L, D) with probability ``rate`` and scale the rest up."""
    if round(rate * _LEVELS) == 0:
        return values
    if round(rate * _LEVELS) == _LEVELS:
        return values * 0.0
    mask = dropout_rng.mask(values.shape, rate)
    dropped: Tensor = _Dropped.apply(values, mask, keep_scale(rate))  # type: ignore[no-untyped-call]
    return dropped


def keep_scale(rate: float) -> float:
    """Return the factor on values that stay: 1 / (1 - rate), of the rounded rate."""
    return _LEVELS / (_LEVELS - round(rate * _LEVELS))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, mask: Tensor, scale: float) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return apply_mask(values, mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - torch's own
        return apply_mask(gradient, *ctx.saved_tensors).mul_(ctx.scale), None, None


class Dropout(nn.Module):
    """`nn.Dropout` on the backbone's `DropoutRng`; active while training."""

    def __init__(self, rate: float, dropout_rng: DropoutRng) -> None:
        super().__init__()
        self.p = rate  # Hugging Face attention modules read `.dropout.p`
        self.dropout_rng = dropout_rng

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements of ``values`` (A, ..., L, D) while training."""
        return dropout(values, self.p, self.dropout_rng) if self.training and self.p > 0 else values


def replace_dropout(module: nn.Module, dropout_rng: DropoutRng, rate: float | None = None) -> None:
    """Replace every dropout below ``module`` by ours, at its own rate unless one is given."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Dropout, Dropout)):
            setattr(module, name, Dropout(child.p if rate is None else rate, dropout_rng))
        else:
            if rate is not None and isinstance(getattr(child, "attention_dropout", None), float):
                child.attention_dropout = rate  # type: ignore[assignment] # ModernBERT has a number
            replace_dropout(child, dropout_rng, rate)


def _hash(state: Tensor) -> Tensor:
    """Mix int64 numbers in place, by SplitMix64's function."""
    for shift, factor in _ROUNDS:
        # torch shifts in copies of the sign, which must be zeros
        state.bitwise_xor_((state >> shift).bitwise_and_((1 << (64 - shift)) - 1))
        if factor != 1:
            state.mul_(factor)
    return state

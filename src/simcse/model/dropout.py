"""Dropout whose masks are a pure function of seed, step, sentence, position, site and feature.

torch's own dropout on a CPU draws one number an element from a serial generator and takes a
third of a SimCSE step. Here each token has a 64-bit key, and one hash of key and counter serves
four elements: no state, no dependence on the number of threads or on which sentences share a
pass. The rate is rounded to a multiple of 2**-16, so 0.1 becomes 0.100006.
"""

from typing import Any

import torch
from torch import Tensor, nn

_STEPS = 1 << 16
_PER_WORD = 4  # 16-bit numbers in a 64-bit word
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes of a float
# SplitMix64: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_ROUNDS = (
    (30, 0xBF58476D1CE4E5B9 - (1 << 64)),
    (27, 0x94D049BB133111EB - (1 << 64)),
    (31, 1),
)


class DropoutRng:
    """The random numbers of a backbone's dropouts.

    A *site* is one dropout of the architecture. Sites are counted in the order of the forward
    pass, so two passes with one key and the same sentences meet the same masks.

    Attributes:
        key: names the masks, see `dropout_key`; with ``None`` each pass draws one from torch's
            default generator.
        rows: (A, L) keys of the tokens as the pass lays them out, one row or padded.
    """

    def __init__(self) -> None:
        self.key: int | None = None
        self.rows = torch.empty(0, 0, dtype=torch.int64)
        self._pass_key = self._site = 0

    def begin(self, sentences: Tensor, positions: Tensor) -> Tensor:
        """Begin a pass: sentence numbers (T,) and positions (T,) -> keys of the tokens (T,)."""
        drawn = torch.randint(2**62, ()) if self.key is None else self.key
        self._pass_key, self._site = int(drawn), 0
        return token_keys(sentences, positions, self._pass_key)

    def next_site(self) -> int:
        """Count one more dropout of this pass."""
        self._site += 1
        return self._site

    def keep(self, shape: torch.Size, rate: float) -> Tensor:
        """Draw the next site's mask for values (A, ..., L, D); see `keep_mask`."""
        rows = self.rows
        if shape[-2] != rows.shape[1] or shape[:-2].numel() % len(rows):
            # not laid out as the tokens are: DeBERTa's table of relative positions
            places = torch.arange(shape[:-1].numel(), device=rows.device)
            rows = _hash(places * _GOLDEN + ~self._pass_key).view(-1, shape[-2])
        return keep_mask(rows, self.next_site(), shape, rate)


def token_keys(sentences: Tensor, positions: Tensor, key: int) -> Tensor:
    """Give each token a key of its own: sentence numbers (T,) and positions (T,) -> (T,) int64."""
    return _hash(((sentences << 32) + positions) * _GOLDEN + key)


def draw(keys: Tensor, number: int, below: int) -> Tensor:
    """Draw an integer from 0 to ``below`` - 1 for each key: (T,) -> (T,) int64.

    Draws of one key with several numbers are independent; ``below`` is at most 2**24.
    """
    counter = torch.tensor(number, device=keys.device) * _GOLDEN  # which wraps
    return ((_hash(keys + counter) & ((1 << 38) - 1)) * below) >> 38


def dropout_key(seed: int, step: int, part: int = 0) -> int:
    """Name the masks of one part of a training step; ``part`` tells several passes apart."""
    words = torch.tensor([seed, step, part]) + 1
    key = torch.zeros((), dtype=torch.int64)
    for word in words:
        key = _hash((key + word) * _GOLDEN)
    return int(key)


def keep_mask(rows: Tensor, site: int, shape: torch.Size, rate: float) -> Tensor:
    """Draw a mask: int16 of ``shape``, -1 (all bits set) where a value is kept, else 0.

    Args:
        rows: (A, L) keys of the tokens.
        site: which dropout of the pass.
        shape: (A * M, L, D) or (A, M, L, D); M may be left out.
        rate: share of zeros, below 1.
    """
    words = -(-shape[-1] // _PER_WORD)
    middle = shape[:-2].numel() // len(rows)
    places = torch.arange(max(middle, words), device=rows.device)
    counter = (places[:middle, None, None] << 16) + places[:words] + (site << 32)  # (M, 1, W)
    bits = _hash(rows[:, None, :, None] + counter * _GOLDEN)  # (A, M, L, W)
    numbers = bits.view(torch.int16)[..., : shape[-1]].reshape(shape)
    mask = torch.empty_like(numbers)
    return torch.ge(numbers, round(rate * _STEPS) - _STEPS // 2, out=mask).neg_()


def apply_mask(values: Tensor, keep: Tensor) -> Tensor:
    """Zero the values that ``keep``, from `keep_mask`, does not keep, by their bits.

    Several times faster than a product with a mask of floats or a choice by booleans.
    """
    integers = _INTEGERS[values.dtype.itemsize]
    return (values.view(integers) & keep.to(integers)).view(values.dtype)


def dropout(values: Tensor, rate: float, dropout_rng: DropoutRng) -> Tensor:
    """Zero elements of (A, ..., L, D) with probability ``rate`` and scale the rest up."""
    if round(rate * _STEPS) == 0:
        return values
    if round(rate * _STEPS) == _STEPS:
        return values * 0.0
    keep = dropout_rng.keep(values.shape, rate)
    dropped: Tensor = _Dropped.apply(values, keep, keep_scale(rate))  # type: ignore[no-untyped-call]
    return dropped


def keep_scale(rate: float) -> float:
    """Return what kept values are multiplied by: 1 / (1 - rate), of the rounded rate."""
    return _STEPS / (_STEPS - round(rate * _STEPS))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, keep: Tensor, scale: float) -> Tensor:  # noqa: ANN401 - torch's own
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return apply_mask(values, keep).mul_(scale)

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
    """Replace every dropout below ``module`` by ours, keeping its rate unless one is given."""
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
        # torch shifts in copies of the sign, which are to be zeros
        state.bitwise_xor_((state >> shift).bitwise_and_((1 << (64 - shift)) - 1))
        if factor != 1:
            state.mul_(factor)
    return state

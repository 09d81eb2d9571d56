"""Poolings: parameter-free reductions of a sentence's hidden states to one vector."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Pooling = Literal["cls", "mean", "mean_last_two", "mean_first_last", "mean_embedding_last"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MIN_WEIGHT = 1e-9  # of a sentence; sentence-transformers has the same


def cls_pool(hidden: Tensor, lengths: Tensor, weights: Tensor | None = None) -> Tensor:
    """Take each sentence's first token: hidden (T, D), lengths (B,) -> (B, D)."""
    return hidden[lengths.cumsum(0) - lengths]


def mean_pool(hidden: Tensor, lengths: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average each sentence's tokens: hidden (T, D), lengths (B,), weights (T,) -> (B, D)."""
    sentence = torch.repeat_interleave(lengths)  # (T,)
    nothing = hidden.new_zeros(len(lengths), hidden.shape[1])
    if weights is None:
        return nothing.index_add(0, sentence, hidden) / lengths.unsqueeze(1)
    sums = nothing.index_add(0, sentence, hidden * weights.unsqueeze(1))
    total = nothing[:, 0].index_add(0, sentence, weights).clamp_min(MIN_WEIGHT)  # (B,)
    return sums / total.unsqueeze(1)


@dataclass(frozen=True)
class PoolingSpec:
    """Which hidden states a pooling averages (0 = embedding, -1 = last) and how it reduces."""

    layers: tuple[int, ...]
    reduce: Callable[[Tensor, Tensor, Tensor | None], Tensor]


SPECS: dict[Pooling, PoolingSpec] = {
    "cls": PoolingSpec((-1,), cls_pool),
    "mean": PoolingSpec((-1,), mean_pool),
    "mean_last_two": PoolingSpec((-2, -1), mean_pool),
    "mean_first_last": PoolingSpec((1, -1), mean_pool),  # "first" is layer 1: SimCSE #285
    "mean_embedding_last": PoolingSpec((0, -1), mean_pool),
}


def pool(
    states: Sequence[Tensor], lengths: Tensor, pooling: Pooling, weights: Tensor | None = None
) -> Tensor:
    """Reduce hidden states to sentence vectors in fp32.

    Args:
        states: the hidden states named by ``SPECS[pooling].layers``, each (T, D).
        lengths: (B,) tokens of each sentence.
        pooling: one of `POOLINGS`.
        weights: (T,) weight of each token in a mean; ``None`` weights all the same.

    Returns:
        (B, D) float32.
    """
    mixed = torch.stack([state.float() for state in states]).mean(0)  # (T, D)
    return SPECS[pooling].reduce(mixed, lengths, weights)


def pool_padded(states: Sequence[Tensor], weights: Tensor, pooling: Pooling) -> Tensor:
    """Reduce padded hidden states, each (B, L, D), under weights (B, L) to (B, D) float32.

    The same as `pool` on the tokens whose weight is not 0.
    """
    hidden = torch.stack([state.float() for state in states]).mean(0)  # (B, L, D)
    if SPECS[pooling].reduce is cls_pool:
        return hidden[:, 0]
    shown = weights.unsqueeze(-1).to(hidden.dtype)  # (B, L, 1)
    return (hidden * shown).sum(1) / shown.sum(1).clamp_min(MIN_WEIGHT)

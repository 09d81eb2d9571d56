"""Attention over packed sentences, registered with transformers under the name `PACKED`.

Any architecture that calls transformers' attention interface runs packed without a rewrite:
it sees one row of T tokens, and this function lets each sentence attend to itself only.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from simcse.model.dropout import dropout as drop

PACKED = "simcse_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    groups: tuple[tuple[int, int], ...],
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
        attention_mask: always ``None``; the groups say which tokens belong together.
        groups: runs of equal length, (number of sentences, length), as in `TokenBatch`.
        scaling: factor on the scores.
        dropout: rate on the attention weights.
        sliding_window: tokens further apart than this minus one do not see each other.
    """
    sizes = [count * length for count, length in groups]
    rows = (x[0].transpose(0, 1) for x in (query, key, value))  # each (T, H, Dh)
    pieces = zip(*(torch.split(x, sizes) for x in rows), strict=True)
    outputs = []
    for (count, length), qkv in zip(groups, pieces, strict=True):
        q, k, v = (x.unflatten(0, (count, length)).transpose(1, 2) for x in qkv)  # (b, H, L, Dh)
        mask = _window(length, sliding_window, query.device)
        outputs.append(_attend(q, k, v, mask, scaling=scaling, rate=dropout))
    return torch.cat(outputs).unsqueeze(0), None  # (1, T, H, Dh)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scaling: float, rate: float
) -> Tensor:
    """Dense attention over sentences of one length: (b, H, L, Dh) -> (b * L, H, Dh)."""
    if rate == 0 and not q.requires_grad:
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=scaling)
    else:  # torch's fused CPU kernel has no dropout and a slow backward
        scores = (q * scaling) @ k.transpose(2, 3)  # (b, H, L, L)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        mixed = (drop(weights, rate) if rate > 0 else weights) @ v
    return mixed.transpose(1, 2).flatten(0, 1)  # (b * L, H, Dh)


def _window(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """(L, L) mask of the pairs within the window, or ``None`` where all are."""
    if sliding_window is None or length <= sliding_window:
        return None
    position = torch.arange(length, device=device)
    return (position[:, None] - position[None, :]).abs() < sliding_window


def register() -> None:
    """Make `PACKED` known to transformers; doing it again changes nothing."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, lambda *_, **__: None)

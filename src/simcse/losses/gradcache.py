"""Gradient caching: the gradient of a large batch in the memory of a small one."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

MicroBatch = TypeVar("MicroBatch")


def gradcache_backward(
    encode: Callable[[MicroBatch], Tensor],
    micro_batches: Sequence[MicroBatch],
    loss: Callable[[Tensor], Tensor],
    *,
    weight: float = 1.0,
    collect: Callable[[], None] = lambda: None,
) -> Tensor:
    """Add the gradient of a loss over many embeddings in the memory of one micro-batch's graph.

    Embed all micro-batches without a graph, take the gradient of the loss with respect to the
    embeddings, then embed each micro-batch again and pass its share of that gradient on. This is
    exact if ``encode`` gives the same embeddings twice, dropout included. Gao, Zhang, Han and
    Callan 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup".

    Args:
        encode: a micro-batch -> its embeddings (n, D).
        micro_batches: what to encode; a single one is encoded once, with its graph.
        loss: embeddings of all micro-batches (B, D), one after another -> a scalar.
        weight: factor of the loss in the gradient.
        collect: called whenever the gradient of a micro-batch has reached the parameters.

    Returns:
        The loss, a scalar without graph.
    """
    if len(micro_batches) == 1:
        value = loss(encode(micro_batches[0]))
        torch.autograd.backward(weight * value)
        collect()
        return value.detach()
    with torch.no_grad():
        embedded = [encode(micro_batch) for micro_batch in micro_batches]
    leaf = torch.cat(embedded).requires_grad_()  # (B, D)
    value = loss(leaf)
    torch.autograd.backward(weight * value)  # parameters of the loss itself get theirs here
    gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    shares = torch.split(gradient, [len(rows) for rows in embedded])
    for micro_batch, share in zip(micro_batches, shares, strict=True):
        torch.autograd.backward(encode(micro_batch), share)
        collect()
    return value.detach()

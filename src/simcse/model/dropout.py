"""Dropout from bulk random bits.

torch's own dropout on a CPU draws one number an element from a serial generator and takes a
third of a SimCSE step. Here one 64-bit draw serves four elements: the rate is rounded to a
multiple of 2**-16, so 0.1 becomes 0.100006.
"""

import torch
from torch import Tensor, nn

_STEPS = 1 << 16


def dropout(values: Tensor, rate: float) -> Tensor:
    """Zero elements with probability ``rate`` and scale the rest by 1 / (1 - rate).

    On a CPU the bits come from torch's default generator (`torch.manual_seed`); elsewhere
    this is `torch.nn.functional.dropout`.
    """
    if values.device.type != "cpu":
        return nn.functional.dropout(values, rate)
    dropped = round(rate * _STEPS)
    if dropped == 0:
        return values
    if dropped == _STEPS:
        return values * 0.0
    draws = torch.empty((values.numel() + 3) // 4, dtype=torch.int64)
    draws.random_(-(2**63), None)
    bits = draws.view(torch.int16)[: values.numel()].view(values.shape)  # uniform int16
    keep = bits >= dropped - _STEPS // 2
    return values * keep.to(values.dtype).mul_(_STEPS / (_STEPS - dropped))


class Dropout(nn.Module):
    """`nn.Dropout` on bulk random bits; active while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.p = rate  # Hugging Face attention modules read `.dropout.p`

    def forward(self, values: Tensor) -> Tensor:
        """Drop elements of ``values`` of any shape while training."""
        return dropout(values, self.p) if self.training and self.p > 0 else values


def replace_dropout(module: nn.Module, rate: float | None = None) -> None:
    """Replace every dropout below ``module`` by ours, keeping its rate unless one is given."""
    for name, child in module.named_children():
        if isinstance(child, (nn.Dropout, Dropout)):
            setattr(module, name, Dropout(child.p if rate is None else rate))
        else:
            if rate is not None and isinstance(getattr(child, "attention_dropout", None), float):
                child.attention_dropout = rate  # type: ignore[assignment] # ModernBERT has a number
            replace_dropout(child, rate)

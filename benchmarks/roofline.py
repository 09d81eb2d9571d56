"""The share of the processor's measured matrix-product rate that some work reaches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from simcse.model.encoder import SentenceEncoder
from simcse.model.precision import DTYPES, choose_precision

REPEATS = 20
ROWS = 4096


@dataclass(frozen=True)
class Roofline:
    """The matrix products of some work.

    Attributes:
        flops: of its linear layers.
        seconds: of the work.
        rate: the best that was measured for such a layer, in FLOP per second.
        precision: of that layer.
    """

    flops: float
    seconds: float
    rate: float
    precision: str

    def __str__(self) -> str:
        reached = self.flops / self.seconds
        return (
            f"{self.flops / 1e9:.1f} GFLOP in linear layers at {reached / 1e9:.0f} GFLOP/s: "
            f"{reached / self.rate:.0%} of the {self.rate / 1e9:.0f} GFLOP/s that one such layer "
            f"reaches here in {self.precision}"
        )


def roofline(
    model: str, sentences: Sequence[str], *, max_length: int, passes: float, seconds: float
) -> Roofline:
    """Count the products of ``passes`` forward passes over sentences, and measure their rate.

    Two for each weight of a linear layer and each token; a backward pass counts as two forward
    passes. Products inside the attention are left out: at these lengths they are few.
    """
    encoder = SentenceEncoder.load(model, precision="fp32", changes={"max_length": max_length})
    tokens = sum(len(row) for row in encoder.tokenizer.ids(sentences))
    layers = (layer for layer in encoder.backbone.modules() if isinstance(layer, nn.Linear))
    weights = sum(layer.weight.numel() for layer in layers)
    device = encoder.device
    precision = choose_precision("auto", device, width=encoder.backbone.width)
    rate = product_rate(encoder.dimensions, precision, device)
    return Roofline(2.0 * weights * tokens * passes, seconds, rate, precision)


def product_rate(width: int, precision: str, device: torch.device) -> float:
    """Measure a linear layer (ROWS, D) -> (ROWS, 4 D): the best rate, in FLOP per second."""
    options: Any = {"dtype": DTYPES[precision], "device": device}
    rows, weight = torch.ones(ROWS, width, **options), torch.ones(4 * width, width, **options)
    best = float("inf")
    with torch.inference_mode():
        for _ in range(REPEATS):
            _synchronize(device)
            started = time.perf_counter()
            nn.functional.linear(rows, weight)
            _synchronize(device)
            best = min(best, time.perf_counter() - started)
    return 2 * ROWS * width * 4 * width / best


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Encoding in int8 on a CPU: every linear layer of BERT-like backbones rounds to 256 levels.

The levels of a layer's input are found once, from random sentences, so that an embedding does not
depend on its neighbors. Inputs and weights differ in range from channel to channel: wide input
channels are narrowed at the weights' expense (SmoothQuant, Xiao et al. 2022, equation 4, strength
0.5), except the result of GELU, which goes from layer to layer as levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse.errors import ResourceError, UsageError
from simcse.model import kernels
from simcse.model.backbone import Backbone
from simcse.model.kernels import MAX_WEIGHT, MIN_RANGE, ZERO_LEVEL, Int8Product, Levels
from simcse.model.linear import GeluLinear, Linear
from simcse.text import TokenBatch, pack

SENTENCES, WORDS = 64, 10  # of the random sentences


@dataclass
class InputRange:
    """The range of a layer's input: largest absolute value of each channel, and both ends."""

    peaks: Tensor  # (in,)
    low: float
    high: float

    @classmethod
    def measure_rows(cls, rows: Tensor) -> "InputRange":
        """Measure inputs (T, in)."""
        return cls(rows.abs().amax(0), float(rows.min()), float(rows.max()))

    @property
    def levels(self) -> Levels:
        """256 levels from one end to the other."""
        scale = max(self.high - self.low, MIN_RANGE) / 255
        return Levels(scale, round(-self.low / scale))


def random_sentences(frame: Sequence[int], vocabulary: int) -> TokenBatch:
    """Draw sentences of any tokens, the same each time, between the special tokens of ``frame``.

    Their inputs range as far as those of prose, whatever language the model was made for.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(vocabulary, (SENTENCES, WORDS), generator=generator)
    return pack([[*frame[:1], *row, *frame[1:]] for row in words.tolist()])


def quantize(backbone: Backbone, batch: TokenBatch) -> None:
    """Make the linear layers of an fp32 backbone encode in int8, with levels found on ``batch``.

    Raises:
        UsageError: it is not built like BERT with GELU, or not on a CPU.
        ResourceError: the processor has no VNNI instructions, without which sums overflow.
    """
    if kernels.processor_supports("vnni") is False:
        raise ResourceError("int8 needs a processor with VNNI instructions; use fp32")
    layers = getattr(getattr(backbone.model, "encoder", None), "layer", ())
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    like_bert = backbone.direct and all(isinstance(x.intermediate, GeluLinear) for x in layers)
    if not (like_bert and on_cpu):
        name = type(backbone.model).__name__
        raise UsageError(f"int8 needs a BERT-like backbone with GELU on a CPU, not {name}")
    ranges = _input_ranges(backbone, batch)
    dtype = torch.bfloat16 if kernels.has_packed_linear() else torch.float32
    joined: dict[Linear, Int8Product] = {}
    single: dict[Linear, Int8Product] = {}
    for layer in layers:
        projections = layer.attention.self
        query, mixed = projections.query, layer.attention.output.dense
        wide, narrow = layer.intermediate.dense, layer.output.dense
        three = [query, projections.key, projections.value]
        joined[query] = smooth(three, ranges[query], dtype=dtype)
        single[mixed] = smooth([mixed], ranges[mixed], dtype=dtype)
        levels = ranges[narrow].levels
        single[wide] = smooth([wide], ranges[wide], dtype=dtype, output=levels)
        weight = narrow.weight.detach().float()
        single[narrow] = Int8Product.quantize(weight, _bias([narrow]), levels, dtype=dtype)
    backbone.set_compute(dtype)
    for linear, product in single.items():
        linear.int8 = product
    for linear, product in joined.items():
        linear.int8_joined = product


def _input_ranges(backbone: Backbone, batch: TokenBatch) -> dict[Linear, InputRange]:
    """Run a batch through transformers' modules and measure each linear layer's input."""
    ranges: dict[Linear, InputRange] = {}

    def note(layer: Linear, inputs: tuple[Tensor, ...]) -> None:
        ranges[layer] = InputRange.measure_rows(inputs[0].flatten(0, -2).float())

    linears = [module for module in backbone.modules() if isinstance(module, Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in linears]
    with torch.no_grad():
        backbone(batch)
    for hook in hooks:
        hook.remove()
    return ranges


def smooth(
    layers: Sequence[Linear], found: InputRange, *, dtype: torch.dtype, output: Levels | None = None
) -> Int8Product:
    """Quantize layers that share an input as one product, and even out its channels."""
    weight = torch.cat([layer.weight.detach().float() for layer in layers])  # (out, in)
    peaks = found.peaks.clamp_min(MIN_RANGE)
    ease = (peaks / weight.abs().amax(0).clamp_min(MIN_RANGE)).sqrt()
    scale = (peaks / ease).max() / MAX_WEIGHT
    per_unit = (1 / (ease * scale)).to(dtype)
    return Int8Product.quantize(
        weight / per_unit.float(),
        _bias(layers),
        Levels(1.0, ZERO_LEVEL),
        dtype=dtype,
        levels_per_unit=per_unit,
        output=output,
    )


def _bias(layers: Sequence[Linear]) -> Tensor:
    biases = [
        torch.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().float()
        for layer in layers
    ]
    return torch.cat(biases)

"""Encoding in int8 on a CPU: every linear layer of BERT and its kin rounds to 256 steps.

The steps of a layer's input are found once, from random sentences, so that an embedding does not
depend on its neighbors. Inputs and weights differ in range from channel to channel: what is wide
in the one is made narrower at the other's expense (SmoothQuant, Xiao et al. 2022, equation 4,
strength 0.5), but for what GELU gives, which goes from layer to layer in steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simcse.errors import ResourceError, UsageError
from simcse.model.backbone import Backbone
from simcse.model.linear import ONEDNN, ROWS, GeluLinear, Int8, Linear
from simcse.text import TokenBatch, pack

STATES = torch.bfloat16 if ONEDNN else torch.float32  # all but the products
MOST, ZERO = 127, 128  # the largest weight; the step that stands for an input of 0
SMALLEST = 1e-6  # an input or a weight that never is larger counts as this large
SENTENCES, WORDS = 64, 10  # to find the steps by


@dataclass
class _Range:
    """What a layer's input was seen to be: the largest of each channel, both ends of all."""

    peaks: Tensor  # (in,)
    low: float
    high: float


def random_sentences(frame: Sequence[int], vocabulary: int) -> TokenBatch:
    """Draw sentences of any tokens, the same each time, between the special tokens of ``frame``.

    Their inputs range as far as those of prose, in whatever language the model was made for.
    """
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(vocabulary, (SENTENCES, WORDS), generator=generator)
    return pack([[*frame[:1], *row, *frame[1:]] for row in words.tolist()])


def quantize(backbone: Backbone, batch: TokenBatch) -> None:
    """Let the linear layers of a backbone in fp32 encode in int8, by what ``batch`` gives them.

    Raises:
        UsageError: it is not built like BERT with GELU, or not on a CPU.
        ResourceError: the processor has no instructions for it, and others overflow.
    """
    if not (torch._C._has_mkldnn and torch.cpu._is_vnni_supported()):
        raise ResourceError("int8 needs a processor with VNNI instructions; use fp32")
    layers = getattr(getattr(backbone.model, "encoder", None), "layer", ())
    on_cpu = next(backbone.parameters()).device.type == "cpu"
    like_bert = backbone.direct and all(isinstance(x.intermediate, GeluLinear) for x in layers)
    if not (like_bert and on_cpu):
        name = type(backbone.model).__name__
        raise UsageError(f"int8 is for BERT and its kin with GELU on a CPU, not {name} as it is")
    seen = _observe(backbone, batch)
    joined: dict[Linear, Int8] = {}
    alone: dict[Linear, Int8] = {}
    for layer in layers:
        projections = layer.attention.self
        query, mixed = projections.query, layer.attention.output.dense
        wide, narrow = layer.intermediate.dense, layer.output.dense
        joined[query] = _smoothed([query, projections.key, projections.value], seen[query])
        alone[mixed] = _smoothed([mixed], seen[mixed])
        steps = _steps(seen[narrow])
        alone[wide] = _smoothed([wide], seen[wide], output=steps)
        alone[narrow] = _int8([narrow], narrow.weight.detach().float(), steps)
    backbone.set_compute(STATES)
    for linear, product in alone.items():
        linear.int8 = product
    for linear, product in joined.items():
        linear.int8_joined = product


def _observe(backbone: Backbone, batch: TokenBatch) -> dict[Linear, _Range]:
    """Run a batch through transformers' modules and note what each linear layer is given."""
    seen: dict[Linear, _Range] = {}

    def note(layer: Linear, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].flatten(0, -2).float()  # (T, in)
        seen[layer] = _Range(rows.abs().amax(0), float(rows.min()), float(rows.max()))

    linears = [module for module in backbone.modules() if isinstance(module, Linear)]
    hooks = [layer.register_forward_pre_hook(note) for layer in linears]
    with torch.no_grad():
        backbone(batch)
    for hook in hooks:
        hook.remove()
    return seen


def _steps(found: _Range) -> tuple[float, int]:
    """Return the scale and the zero of 256 steps from one end to the other."""
    scale = max(found.high - found.low, SMALLEST) / 255
    return scale, round(-found.low / scale)


def _smoothed(
    layers: Sequence[Linear], found: _Range, *, output: tuple[float, int] | None = None
) -> Int8:
    """Quantize layers that take one input, as one product."""
    weight = torch.cat([layer.weight.detach().float() for layer in layers])  # (out, in)
    peaks = found.peaks.clamp_min(SMALLEST)
    ease = (peaks / weight.abs().amax(0).clamp_min(SMALLEST)).sqrt()
    scale = (peaks / ease).max() / MOST
    per_unit = (1 / (ease * scale)).to(STATES)
    return _int8(layers, weight / per_unit.float(), (1.0, ZERO), per_unit=per_unit, output=output)


def _int8(
    layers: Sequence[Linear],
    weight: Tensor,
    steps: tuple[float, int],
    *,
    per_unit: Tensor | None = None,
    output: tuple[float, int] | None = None,
) -> Int8:
    scales = weight.abs().amax(1).clamp_min(SMALLEST) / MOST  # (out,)
    whole = (weight / scales[:, None]).round_().to(torch.int8)
    return Int8(
        per_unit,
        *steps,
        torch.ops.onednn.qlinear_prepack(whole, [ROWS, weight.shape[1]]),
        scales,
        torch.zeros_like(scales, dtype=torch.int32),
        torch.cat([_bias(layer) for layer in layers]),
        output,
        STATES,
    )


def _bias(layer: Linear) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_features)
    return layer.bias.detach().float()

"""Linear layers on a CPU, in bf16 and int8: weights as oneDNN wants them, few passes over memory.

In inference GELU is computed with the product. In training, and only in layers that widen or
narrow, where it pays: the bias is added with the product, which torch writes to the result
first, and the gradient of the weight does without transposing the wide side, which halves the
rate. In fp32 none of this is faster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

ONEDNN = torch._C._has_mkldnn and torch.cpu._is_avx512_bf16_supported()
WIDENS = 2  # a layer that widens or narrows so many times pays for laying its weight out each step
ROWS = 2048  # what oneDNN is told to lay weights out for; other numbers of rows run as fast


@dataclass(frozen=True)
class _Packed:
    """Weights, one below the other, as oneDNN wants them, and by what to see a change."""

    sources: tuple[Tensor, ...]  # keeps the memory from being used again
    versions: tuple[int, ...]
    blocks: Tensor

    @classmethod
    def of(cls, weights: Sequence[Tensor]) -> "_Packed":
        """Lay weights out."""
        sources = tuple(weight.detach() for weight in weights)
        joined = sources[0] if len(sources) == 1 else torch.cat(sources)
        blocks = torch.ops.mkldnn._reorder_linear_weight(joined, ROWS)
        return cls(sources, tuple(source._version for source in sources), blocks)

    def fits(self, weights: Sequence[Tensor]) -> bool:
        """Whether no weight has been changed or replaced since."""
        return len(weights) == len(self.sources) and all(
            source.data_ptr() == weight.data_ptr() and version == weight._version
            for source, version, weight in zip(self.sources, self.versions, weights, strict=True)
        )


@dataclass(frozen=True)
class Int8:
    """A linear layer of whole numbers: inputs of 0 to 255, weights of -127 to 127.

    Attributes:
        per_unit: (in,) steps in a unit of each input; ``None``: the input comes as steps.
        scale: of a step of the input.
        zero: the step that stands for 0; 128 where ``per_unit`` is given.
        blocks: (out, in) weights as oneDNN wants them.
        scales: (out,) of a step of each output's weights.
        zeros: (out,) int32, the step that stands for a weight of 0.
        bias: (out,) fp32.
        output: scale and zero of the steps to give; ``None``: numbers of ``dtype``.
        dtype: of everything that is no steps.
    """

    per_unit: Tensor | None
    scale: float
    zero: int
    blocks: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor
    output: tuple[float, int] | None
    dtype: torch.dtype

    def __call__(self, values: Tensor, activation: str) -> Tensor:
        """Multiply: (..., in) -> (..., out)."""
        if self.per_unit is not None:
            # Flipping the top bit adds 128; torch's own cast to uint8 takes six times as long. Of
            # int8 itself oneDNN makes products by a reference many hundred times as slow.
            steps = values.mul(self.per_unit).round_().clamp_(-128, 127).to(torch.int8)
            values = steps.view(torch.uint8).bitwise_xor_(128)
        scale, zero = self.output or (1.0, 0)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            values,
            self.scale,
            self.zero,
            self.blocks,
            self.scales,
            self.zeros,
            self.bias,
            scale,
            zero,
            torch.uint8 if self.output else self.dtype,
            activation,
            [],
            "none",
        )
        return product


class Linear(nn.Linear):
    """`nn.Linear` that keeps its weight laid out for oneDNN while encoding.

    Attributes:
        int8: what it multiplies by while encoding in int8.
        int8_joined: the same for `forward_with`.
    """

    _packed: _Packed | None = None
    int8: Int8 | None = None
    int8_joined: Int8 | None = None

    def forward(self, input: Tensor, *, activation: str = "none") -> Tensor:  # noqa: A002 - as torch's
        """Multiply: (..., in) -> (..., out); ``activation`` only where `fast` says so."""
        if self.int8 is not None and torch.is_inference_mode_enabled():
            return self.int8(input, activation)
        if self.fast(input):
            return _multiply(input, self._blocks(), self.bias, activation)
        widens = max(self.weight.shape) >= WIDENS * min(self.weight.shape)
        if widens and self.training and torch.is_grad_enabled() and self._suits(input):
            product: Tensor = _Product.apply(input, self.weight, self.bias, self._blocks())  # type: ignore[no-untyped-call]
            return product
        return nn.functional.linear(input, self.weight, self.bias)

    def forward_with(self, input: Tensor, others: "Sequence[Linear]") -> list[Tensor]:  # noqa: A002 - as torch's
        """Multiply with other layers of this one's size, too: a list of (..., out).

        Where it is `fast` that is one product, and what comes back are views of it.
        """
        layers = (self, *others)
        if self.int8_joined is not None and torch.is_inference_mode_enabled():
            return list(self.int8_joined(input, "none").chunk(len(layers), dim=-1))
        if not all(layer.bias is not None and layer.fast(input) for layer in layers):
            return [layer.forward(input) for layer in layers]
        bias = torch.cat([layer.bias for layer in layers])
        return list(_multiply(input, self._blocks(*others), bias).chunk(len(layers), dim=-1))

    def fast(self, input: Tensor) -> bool:  # noqa: A002 - as torch's
        """Whether the product can take an activation along."""
        return torch.is_inference_mode_enabled() and (self.int8 is not None or self._suits(input))

    def _suits(self, input: Tensor) -> bool:  # noqa: A002 - as torch's
        return (
            ONEDNN
            and input.dtype == torch.bfloat16 == self.weight.dtype
            and input.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not self.weight.is_inference()  # which does not tell when it changes
        )

    def _blocks(self, *others: "Linear") -> Tensor:
        """Return the weights as oneDNN wants them, laid out anew if one of them has changed."""
        weights = [self.weight, *(other.weight for other in others)]
        if self._packed is None or not self._packed.fits(weights):
            self._packed = _Packed.of(weights)
        return self._packed.blocks

    def __getstate__(self) -> dict[str, object]:  # neither copied nor pickled
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


class _Product(torch.autograd.Function):
    """x W + b with gradient, for a weight of which ``blocks`` is oneDNN's form."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        blocks: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.biased = bias is not None
        return _multiply(values, blocks, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        values, weight = ctx.saved_tensors
        g, x = gradient.flatten(0, -2), values.flatten(0, -2)  # (T, out), (T, in)
        to_values = torch.mm(g, weight).view_as(values) if ctx.needs_input_grad[0] else None
        to_weight = _transposed_product(g, x) if ctx.needs_input_grad[1] else None
        to_bias = g.new_ones(1, len(g)).mm(g).squeeze(0) if ctx.biased else None
        return to_values, to_weight, to_bias, None


def _multiply(
    values: Tensor, blocks: Tensor, bias: Tensor | None, activation: str = "none"
) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(
        values, blocks, bias, activation, [], "none"
    )
    return product


def _transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """Compute left^T right for (T, n) and (T, m) by transposing the narrower one in memory."""
    if left.shape[1] < right.shape[1]:
        return left.t().contiguous().mm(right)
    return right.t().contiguous().mm(left).t()


class GeluLinear(nn.Module):
    """A linear layer and the GELU after it, in one pass over memory while encoding.

    Its names are those of transformers' `BertIntermediate` and its kin.
    """

    def __init__(self, dense: Linear, intermediate_act_fn: nn.Module) -> None:
        super().__init__()
        self.dense = dense
        self.intermediate_act_fn = intermediate_act_fn

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Compute gelu(x W + b): (..., in) -> (..., out)."""
        if self.dense.fast(hidden_states):
            return self.dense.forward(hidden_states, activation="gelu")
        activated: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return activated


def replace_linear(module: nn.Module) -> None:
    """Make all linear layers below ``module`` such layers; their parameters stay the same."""
    for name, child in module.named_children():
        replace_linear(child)
        if type(child) is nn.Linear:
            child.__class__ = Linear
        parts = dict(child.named_children())
        if parts.keys() == {"dense", "intermediate_act_fn"}:
            dense, act = parts["dense"], parts["intermediate_act_fn"]
            if isinstance(dense, Linear) and isinstance(act, GELUActivation):
                setattr(module, name, GeluLinear(dense, act))

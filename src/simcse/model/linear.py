"""Linear layers on a CPU, in bf16 and int8: weights in oneDNN's layout, few passes over memory.

In inference GELU is computed with the product. In training, and only in layers that widen or
narrow, where it pays: the bias is added with the product, which torch writes to the result
first, and the gradient of the weight does without transposing the wide side, which halves the
rate. In fp32 none of this is faster.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from simcse.model.kernels import Int8Product, PackedWeight, has_packed_linear

MIN_WIDENING = 2  # a layer that widens or narrows by it pays for a new weight layout at each step


class Linear(nn.Linear):
    """`nn.Linear` that stores its weight in oneDNN's layout while encoding."""

    _packed: PackedWeight | None = None
    int8: Int8Product | None = None  # the product that replaces this layer's while encoding in int8
    int8_joined: Int8Product | None = None  # the same for `forward_with`

    def forward(self, input: Tensor, *, activation: str = "none") -> Tensor:  # noqa: A002 - as torch's
        """Multiply: (..., in) -> (..., out); ``activation`` only where `takes_activation`."""
        if self.int8 is not None and torch.is_inference_mode_enabled():
            return self.int8(input, activation)
        if self.takes_activation(input):
            return self._pack().multiply(input, self.bias, activation)
        widens = max(self.weight.shape) >= MIN_WIDENING * min(self.weight.shape)
        if widens and self.training and torch.is_grad_enabled() and self._suits(input):
            product: Tensor = _PackedProduct.apply(input, self.weight, self.bias, self._pack())  # type: ignore[no-untyped-call]
            return product
        return nn.functional.linear(input, self.weight, self.bias)

    def forward_with(self, input: Tensor, others: "Sequence[Linear]") -> list[Tensor]:  # noqa: A002 - as torch's
        """Multiply with other layers of this one's size, too: a list of (..., out).

        Where each `takes_activation` that is one product, and the results are views of it.
        """
        layers = (self, *others)
        if self.int8_joined is not None and torch.is_inference_mode_enabled():
            return list(self.int8_joined(input).chunk(len(layers), dim=-1))
        if not all(layer.bias is not None and layer.takes_activation(input) for layer in layers):
            return [layer.forward(input) for layer in layers]
        bias = torch.cat([layer.bias for layer in layers])
        return list(self._pack(*others).multiply(input, bias).chunk(len(layers), dim=-1))

    def takes_activation(self, input: Tensor) -> bool:  # noqa: A002 - as torch's
        """Whether the product can include an activation."""
        return torch.is_inference_mode_enabled() and (self.int8 is not None or self._suits(input))

    def _suits(self, input: Tensor) -> bool:  # noqa: A002 - as torch's
        return (
            input.dtype == torch.bfloat16 == self.weight.dtype
            and input.device.type == "cpu"
            and has_packed_linear()
            and not torch.is_autocast_enabled("cpu")
            and not self.weight.is_inference()  # such a weight has no change counter
        )

    def _pack(self, *others: "Linear") -> PackedWeight:
        """Return the weights in oneDNN's layout, laid out anew if one of them has changed."""
        weights = [self.weight, *(other.weight for other in others)]
        if self._packed is None or not self._packed.is_current(weights):
            self._packed = PackedWeight.pack(weights)
        return self._packed

    def __getstate__(self) -> dict[str, object]:  # neither copied nor pickled
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


class _PackedProduct(torch.autograd.Function):
    """x W + b with gradient, for a weight that is also given in oneDNN's layout."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        values: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        packed: PackedWeight,
    ) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.biased = bias is not None
        return packed.multiply(values, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401 - torch's own
        values, weight = ctx.saved_tensors
        g, x = gradient.flatten(0, -2), values.flatten(0, -2)  # (T, out), (T, in)
        to_values = torch.mm(g, weight).view_as(values) if ctx.needs_input_grad[0] else None
        to_weight = _transposed_product(g, x) if ctx.needs_input_grad[1] else None
        to_bias = g.new_ones(1, len(g)).mm(g).squeeze(0) if ctx.biased else None
        return to_values, to_weight, to_bias, None


def _transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """Compute left^T right for (T, n) and (T, m) by transposing the narrower one in memory."""
    if left.shape[1] < right.shape[1]:
        return left.t().contiguous().mm(right)
    return right.t().contiguous().mm(left).t()


class GeluLinear(nn.Module):
    """A linear layer and the GELU after it, in one pass over memory while encoding.

    Its names are those of transformers' `BertIntermediate` and similar modules.
    """

    def __init__(self, dense: Linear, intermediate_act_fn: nn.Module) -> None:
        super().__init__()
        self.dense = dense
        self.intermediate_act_fn = intermediate_act_fn

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Compute gelu(x W + b): (..., in) -> (..., out)."""
        if self.dense.takes_activation(hidden_states):
            return self.dense.forward(hidden_states, activation="gelu")
        activated: Tensor = self.intermediate_act_fn(self.dense(hidden_states))
        return activated


def replace_linear(module: nn.Module) -> None:
    """Make all linear layers below ``module`` such layers; their parameters stay the same."""
    for name, child in module.named_children():
        replace_linear(child)
        if type(child) is nn.Linear:
            child.__class__ = Linear
        below = dict(child.named_children())
        if below.keys() == {"dense", "intermediate_act_fn"}:
            dense, activation = below["dense"], below["intermediate_act_fn"]
            if isinstance(dense, Linear) and isinstance(activation, GELUActivation):
                setattr(module, name, GeluLinear(dense, activation))

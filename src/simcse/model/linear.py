"""Linear layers that encode faster on a CPU: weights as oneDNN wants them, GELU in the product.

Only in inference mode and in bf16: in fp32 neither is faster.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

ONEDNN = torch._C._has_mkldnn and torch.cpu._is_avx512_bf16_supported()
ROWS = 2048  # what oneDNN is told to lay weights out for; other numbers of rows run as fast


@dataclass(frozen=True)
class _Packed:
    """A weight as oneDNN wants it, and by what to see that it is still that weight's."""

    source: Tensor  # keeps the memory from being used again
    version: int
    blocks: Tensor

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight has not been changed or replaced since."""
        same = self.source.data_ptr() == weight.data_ptr()
        return same and self.version == weight._version


class Linear(nn.Linear):
    """`nn.Linear` that keeps its weight laid out for oneDNN while encoding."""

    _packed: _Packed | None = None

    def forward(self, input: Tensor, *, activation: str = "none") -> Tensor:  # noqa: A002 - as torch's
        """Multiply: (..., in) -> (..., out); ``activation`` only where `fast` says so."""
        if not self.fast(input):
            return nn.functional.linear(input, self.weight, self.bias)
        if self._packed is None or not self._packed.fits(self.weight):
            weight = self.weight.detach()
            blocks = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
            self._packed = _Packed(weight, weight._version, blocks)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self._packed.blocks, self.bias, activation, [], "none"
        )
        return product

    def fast(self, input: Tensor) -> bool:  # noqa: A002 - as torch's
        """Whether the product runs in oneDNN's layout."""
        return (
            ONEDNN
            and torch.is_inference_mode_enabled()
            and input.dtype == torch.bfloat16 == self.weight.dtype
            and input.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not self.weight.is_inference()  # which does not tell when it changes
        )

    def __getstate__(self) -> dict[str, object]:  # neither copied nor pickled
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


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

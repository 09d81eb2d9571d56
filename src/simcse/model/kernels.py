"""The only file that uses private operators and attributes of torch and transformers.

Each operator is compared with plain torch on tiny inputs when it is first needed, once a process.
Where it is missing or gives other results, plain torch computes the same and one warning names it.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from simcse.errors import SimcseWarning

PACKED_ROWS = 2048  # rows that oneDNN lays weights out for; other numbers of rows run as fast
MAX_WEIGHT, ZERO_LEVEL = 127, 128  # largest int8 weight; level of 0 where the input is centered
MIN_RANGE = 1e-6  # smaller weights and inputs count as this large
# What a private name can raise after a release changed it.
_CHANGED = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, SimcseWarning, stacklevel=2)


def _passes(operator: str, self_test: Callable[[], bool]) -> bool:
    """Run the self-test of an operator, and warn where it fails."""
    try:
        # The first use may be inside a caller's inference mode, autocast or training step.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast("cpu", enabled=False):
            problem = "" if self_test() else "gives other results than plain torch"
    except _CHANGED as error:
        problem = f"fails ({str(error).partition(chr(10))[0]})"
    if problem:
        _warn_once(
            f"torch {torch.__version__}: the operator {operator} {problem}; "
            "plain torch replaces it, which is slower"
        )
    return not problem


def processor_supports(instructions: str) -> bool | None:
    """Say whether the processor has "avx512_bf16" or "vnni"; ``None`` if torch does not know."""
    detect = getattr(torch.cpu, f"_is_{instructions}_supported", None)
    if detect is None:
        _warn_once(
            f"torch {torch.__version__} has no test for {instructions} instructions; "
            "they are not used"
        )
        return None
    has_onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(has_onednn and detect())


def _ramp(*shape: int) -> Tensor:
    """Return values from -1 to 1 that take nothing from torch's random generator."""
    values = torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device="cpu")
    return torch.sin(values * 1.7).view(shape)


# bf16 products with oneDNN's weight layout


@functools.cache
def has_packed_linear() -> bool:
    """Whether bf16 weights can be laid out for oneDNN, which is faster than `nn.Linear`."""
    return processor_supports("avx512_bf16") is True and _passes(
        "mkldnn._linear_pointwise", _packed_linear_is_right
    )


@dataclass(frozen=True)
class PackedWeight:
    """bf16 weights, one below the other, in oneDNN's layout; needs `has_packed_linear`."""

    sources: tuple[Tensor, ...]  # the weights, whose memory is thereby not used again
    versions: tuple[int, ...]  # their change counters when they were laid out
    blocks: Tensor  # all of them in oneDNN's layout

    @classmethod
    def pack(cls, weights: Sequence[Tensor]) -> "PackedWeight":
        """Lay weights (out, in) out."""
        sources = tuple(weight.detach() for weight in weights)
        joined = sources[0] if len(sources) == 1 else torch.cat(sources)
        blocks = torch.ops.mkldnn._reorder_linear_weight(joined, PACKED_ROWS)
        return cls(sources, tuple(source._version for source in sources), blocks)

    def is_current(self, weights: Sequence[Tensor]) -> bool:
        """Whether no weight was changed or replaced since."""
        return len(weights) == len(self.sources) and all(
            source.data_ptr() == weight.data_ptr() and version == weight._version
            for source, version, weight in zip(self.sources, self.versions, weights, strict=True)
        )

    def multiply(self, values: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
        """Multiply (..., in) -> (..., out) and apply the activation "none" or "gelu"."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            values, self.blocks, bias, activation, [], "none"
        )
        return product


def _packed_linear_is_right() -> bool:
    values, weight, bias = (_ramp(*shape).bfloat16() for shape in ((3, 32), (48, 32), (48,)))
    packed = PackedWeight.pack([weight])
    plain = nn.functional.linear(values.float(), weight.float(), bias.float())
    right = _close(packed.multiply(values, bias), plain) and _close(
        packed.multiply(values, None, "gelu"), nn.functional.gelu(plain - bias.float())
    )
    current = packed.is_current([weight])
    return right and current and not packed.is_current([weight.mul_(2)])


def _close(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found.float(), expected, atol=0.05, rtol=0.02)


# int8 products


class Levels(NamedTuple):
    """How the 256 levels of a value are spaced: value = (level - zero_point) * scale."""

    scale: float
    zero_point: int


@functools.cache
def has_int8_linear() -> bool:
    """Whether oneDNN multiplies int8; without VNNI instructions its sums would overflow."""
    return processor_supports("vnni") is True and _passes(
        "onednn.qlinear_pointwise", _int8_linear_is_right
    )


@dataclass(frozen=True)
class Int8Product:
    """A linear layer of inputs from 0 to 255 and weights from -127 to 127."""

    weight: Tensor  # (out, in) in oneDNN's layout, or fp32 where plain torch multiplies
    weight_scales: Tensor  # (out,) size of one weight level of each output
    weight_zero_points: Tensor  # (out,) int32, the weight level that means 0: always 0
    bias: Tensor  # (out,) fp32
    input: Levels  # levels of the input
    # (in,) factors that turn inputs into levels; None if inputs are levels.
    levels_per_unit: Tensor | None
    output: Levels | None  # levels of the result; None for numbers of dtype
    dtype: torch.dtype  # number format of all that is not levels
    is_packed: bool  # whether oneDNN multiplies

    @classmethod
    def quantize(
        cls,
        weight: Tensor,
        bias: Tensor,
        input: Levels,  # noqa: A002 - as the attribute
        *,
        dtype: torch.dtype,
        levels_per_unit: Tensor | None = None,
        output: Levels | None = None,
        packed: bool | None = None,
    ) -> "Int8Product":
        """Round fp32 weights (out, in), each row to levels of its own size."""
        scales = weight.abs().amax(1).clamp_min(MIN_RANGE) / MAX_WEIGHT  # (out,)
        whole = (weight / scales[:, None]).round_().to(torch.int8)
        packed = has_int8_linear() if packed is None else packed
        if packed:
            stored = torch.ops.onednn.qlinear_prepack(whole, [PACKED_ROWS, whole.shape[1]])
        else:
            stored = whole * scales[:, None]
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return cls(stored, scales, zeros, bias, input, levels_per_unit, output, dtype, packed)

    def __call__(self, values: Tensor, activation: str = "none") -> Tensor:
        """Multiply (..., in) -> (..., out) and apply the activation "none" or "gelu"."""
        if self.levels_per_unit is not None:
            # Flipping the top bit adds 128; torch's own cast to uint8 takes six times as long. Of
            # int8 itself oneDNN makes products by a reference many hundred times as slow.
            rounded = values.mul(self.levels_per_unit).round_().clamp_(-128, 127).to(torch.int8)
            values = rounded.view(torch.uint8).bitwise_xor_(128)
        multiply = self._multiply_packed if self.is_packed else self._multiply_plainly
        return multiply(values, activation)

    def _multiply_packed(self, levels: Tensor, activation: str) -> Tensor:
        output = self.output or Levels(1.0, 0)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels,
            *self.input,
            self.weight,
            self.weight_scales,
            self.weight_zero_points,
            self.bias,
            *output,
            torch.uint8 if self.output else self.dtype,
            activation,
            [],
            "none",
        )
        return product

    def _multiply_plainly(self, levels: Tensor, activation: str) -> Tensor:
        values = (levels.float() - self.input.zero_point) * self.input.scale
        product = nn.functional.linear(values, self.weight, self.bias)
        product = nn.functional.gelu(product) if activation == "gelu" else product
        if self.output is None:
            return product.to(self.dtype)
        rounded = (product / self.output.scale).round_() + self.output.zero_point
        return rounded.clamp_(0, 255).to(torch.uint8)


def _int8_linear_is_right() -> bool:
    weight, bias, values = _ramp(48, 32), _ramp(48), _ramp(3, 32)
    centered, per_unit = Levels(1.0, ZERO_LEVEL), torch.full((32,), 100.0)

    def make(packed: bool, output: Levels | None) -> Int8Product:
        return Int8Product.quantize(
            *(weight / 100, bias, centered),
            dtype=torch.float32,
            levels_per_unit=per_unit,
            output=output,
            packed=packed,
        )

    packed, plain = (make(each, None)(values) for each in (True, False))
    packed_levels, levels = (make(each, Levels(0.05, 9))(values, "gelu") for each in (True, False))
    return _close(packed, plain) and bool((packed_levels.int() - levels.int()).abs().max() <= 1)


# The gradient of softmax


@functools.cache
def _has_softmax_backward() -> bool:
    return _passes("_softmax_backward_data", _softmax_backward_is_right)


def softmax_backward(gradient: Tensor, weights: Tensor) -> Tensor:
    """Return the gradient of scores: of ``weights = scores.softmax(-1)``, both (..., L)."""
    if _has_softmax_backward():
        return torch._softmax_backward_data(gradient, weights, -1, weights.dtype)
    return _plain_softmax_backward(gradient, weights)


def _plain_softmax_backward(gradient: Tensor, weights: Tensor) -> Tensor:
    wide = torch.promote_types(weights.dtype, torch.float32)
    g, w = gradient.to(wide), weights.to(wide)
    return (w * (g - (g * w).sum(-1, keepdim=True))).to(weights.dtype)


def _softmax_backward_is_right() -> bool:
    gradient, weights = _ramp(3, 5), _ramp(5, 3).t().softmax(-1)
    found = torch._softmax_backward_data(gradient, weights, -1, weights.dtype)
    return torch.allclose(found, _plain_softmax_backward(gradient, weights), atol=1e-6)


# transformers has no public way to read these


def attention_implementation(model: Any) -> str:  # noqa: ANN401 - HF has no common type
    """Return the attention implementation that a transformers model runs with."""
    return str(getattr(model.config, "_attn_implementation", None) or "eager")


def uses_attention_interface(model: nn.Module) -> bool:
    """Whether an architecture calls the function registered with `AttentionInterface`."""
    return bool(getattr(model, "_supports_attention_backend", False))

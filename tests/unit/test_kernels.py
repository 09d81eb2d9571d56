"""Private operators: compared with plain torch, and replaced by it where they are missing or wrong.

What plain torch computes must be the same within these bounds: cosine 0.999 of an embedding in
bf16 or int8, 1 % of the norm of a gradient.
"""

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from simcse.errors import SimcseWarning
from simcse.evaluate.vectors import cosine
from simcse.model import kernels
from simcse.model.encoder import SentenceEncoder
from simcse.model.kernels import Int8Product, Levels, PackedWeight, softmax_backward
from simcse.model.linear import Linear
from simcse.model.settings import ModelSettings

MEAN = ModelSettings(pooling="mean", max_length=32)
CACHED = (
    kernels._warn_once,
    kernels.has_packed_linear,
    kernels.has_int8_linear,
    kernels._has_softmax_backward,
)
MakeEncoder = Callable[..., SentenceEncoder]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Test each operator anew, as another process would."""
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


def wrong(*_: Any, **__: Any) -> Tensor:
    return torch.zeros(())


# Ways to lose an operator: its place, its name, and what is put there.
LOSSES: dict[str, tuple[Any, str, Any]] = {
    "mkldnn is missing": (torch.ops, "mkldnn", SimpleNamespace()),
    "onednn is missing": (torch.ops, "onednn", SimpleNamespace()),
    "softmax backward is missing": (torch, "_softmax_backward_data", None),
    "mkldnn differs": (torch.ops.mkldnn, "_linear_pointwise", wrong),
    "onednn differs": (torch.ops.onednn, "qlinear_pointwise", wrong),
    "softmax backward differs": (torch, "_softmax_backward_data", wrong),
    "the bf16 test is missing": (torch.cpu, "_is_avx512_bf16_supported", None),
    "the VNNI test is missing": (torch.cpu, "_is_vnni_supported", None),
}
ALL_MISSING = [loss for name, loss in LOSSES.items() if name.endswith("missing")]
CASES = [*([loss] for loss in LOSSES.values()), ALL_MISSING]


def lose(monkeypatch: pytest.MonkeyPatch, losses: list[tuple[Any, str, Any]]) -> None:
    for place, name, left in losses:
        if left is None:
            monkeypatch.delattr(place, name)
        else:
            monkeypatch.setattr(place, name, left)


def results(make_encoder: MakeEncoder, sentences: list[str]) -> dict[str, np.ndarray]:
    """Embeddings in each precision, and the gradient of a training step in bf16 with dropout."""
    found = {}
    for precision in ("fp32", "bf16", "int8"):
        encoder = make_encoder(MEAN)
        encoder.set_precision(precision)
        found[precision] = encoder.encode(sentences)
    encoder = make_encoder(MEAN)
    encoder.set_precision("bf16")
    encoder.backbone.set_dropout(0.1)
    encoder.backbone.dropout_rng.key = 3
    encoder.train()
    encoder(encoder.tokenizer(sentences)).square().sum().backward()
    gradients = [weight.grad.flatten() for weight in encoder.parameters()]
    found["gradient"] = torch.cat(gradients).float().numpy()
    return found


@pytest.mark.parametrize("losses", CASES, ids=[*LOSSES, "all are missing"])
def test_everything_works_without_the_operators(
    losses: list[tuple[Any, str, Any]],
    make_encoder: MakeEncoder,
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernels.processor_supports("vnni") is False:  # it is rejected there, whatever torch has
        lose(monkeypatch, [LOSSES["the VNNI test is missing"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SimcseWarning)
        expected = results(make_encoder, sentences)
        used = [function() for function in CACHED[1:]]
        for function in CACHED:
            function.cache_clear()
        with monkeypatch.context() as patch:
            lose(patch, [loss for loss in losses if hasattr(loss[0], loss[1])])
            found = results(make_encoder, sentences)
            assert [function() for function in CACHED[1:]] != used or not all(used)
    np.testing.assert_allclose(found["fp32"], expected["fp32"], atol=1e-5)
    for precision in ("bf16", "int8"):
        assert cosine(found[precision], expected[precision]).min() > 0.999
    off = np.linalg.norm(found["gradient"] - expected["gradient"])
    assert off < 0.01 * np.linalg.norm(expected["gradient"])


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("softmax backward is missing", r"operator _softmax_backward_data fails \(module 'torch'"),
        ("softmax backward differs", "_softmax_backward_data gives other results than plain torch"),
    ],
)
def test_one_warning_names_what_is_left_out(
    loss: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(monkeypatch, [LOSSES[loss]])
    gradient, weights = torch.randn(3, 5), torch.randn(3, 5).softmax(-1)
    with pytest.warns(SimcseWarning, match=message):
        softmax_backward(gradient, weights)
    softmax_backward(gradient, weights)  # without another one, which would be an error


def test_a_processor_test_that_is_missing_means_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    lose(monkeypatch, [LOSSES["the bf16 test is missing"]])
    with pytest.warns(SimcseWarning, match="has no test for avx512_bf16"):
        known = kernels.processor_supports("avx512_bf16")
    assert known is None
    assert not kernels.has_packed_linear()


def test_a_self_test_uses_no_random_numbers_and_suits_any_mode() -> None:
    before = torch.random.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = [function() for function in CACHED[1:]]
    for function in CACHED[1:]:
        function.cache_clear()
    assert found == [function() for function in CACHED[1:]]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gradient_of_softmax_is_that_of_autograd(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 7, dtype=torch.float64, generator=generator).requires_grad_()
    gradient = torch.randn(4, 7, dtype=torch.float64, generator=generator)
    weights = scores.softmax(-1)
    weights.backward(gradient)
    for function in (softmax_backward, kernels._plain_softmax_backward):
        found = function(gradient.to(dtype), weights.detach().to(dtype))
        assert found.dtype == dtype
        bound = 0.02 if dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(found.double(), scores.grad, atol=bound, rtol=0)


@pytest.mark.parametrize("output", [None, Levels(0.05, 100)])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_plain_torch_multiplies_levels_as_the_arithmetic_says(
    output: Levels | None, activation: str
) -> None:
    torch.manual_seed(0)
    weight, bias, levels = torch.randn(6, 8), torch.randn(6), torch.randint(256, (3, 8))
    product = Int8Product.quantize(
        *(weight, bias, Levels(0.02, 30)), dtype=torch.float32, output=output, packed=False
    )
    found = product(levels.to(torch.uint8), activation)
    scales = weight.abs().amax(1, keepdim=True) / 127
    exact = (levels - 30) * 0.02 @ ((weight / scales).round() * scales).T + bias
    exact = torch.nn.functional.gelu(exact) if activation == "gelu" else exact
    if output is None:
        torch.testing.assert_close(found, exact, atol=1e-5, rtol=1e-5)
    else:
        assert found.dtype == torch.uint8
        expected = (exact / output.scale + output.zero_point).clamp(0, 255)
        assert (found.float() - expected).abs().max() <= 0.51


def test_packed_weights_notice_a_change() -> None:
    if not kernels.has_packed_linear():
        pytest.skip("needs a processor that multiplies bf16")
    weight, other = torch.ones(48, 32).bfloat16(), torch.ones(48, 32).bfloat16()
    packed = PackedWeight.pack([weight])
    assert packed.is_current([weight])
    assert not packed.is_current([weight, other])
    assert not packed.is_current([other])
    weight.add_(1)
    assert not packed.is_current([weight])


def test_importing_and_constructing_tests_nothing() -> None:
    Linear(4, 4)(torch.ones(1, 4))
    assert kernels.has_packed_linear.cache_info().currsize == 0
    assert kernels._has_softmax_backward.cache_info().currsize == 0

"""Encoding in int8: the arithmetic, how near it stays to fp32, and what cannot run in it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, DistilBertConfig

from simcse.errors import ResourceError, UsageError
from simcse.evaluate.vectors import cosine
from simcse.model import kernels
from simcse.model.backbone import Backbone
from simcse.model.encoder import SentenceEncoder
from simcse.model.int8 import InputRange, quantize, random_sentences, smooth
from simcse.model.kernels import Int8Product
from simcse.model.linear import Linear
from simcse.model.settings import ModelSettings
from transformers_models import SIZES, make_model

needs_vnni = pytest.mark.skipif(
    not kernels.has_int8_linear(), reason="needs a processor with VNNI instructions"
)
DTYPE = torch.bfloat16 if kernels.has_packed_linear() else torch.float32
BATCH = random_sentences([2, 3], 90)
TEXTS = ["The dog runs.", "A cat eats the food, and then it sleeps.", "a", "Children play music."]


@pytest.fixture
def quantized(make_encoder: Callable[..., SentenceEncoder]) -> SentenceEncoder:
    encoder = make_encoder(ModelSettings(pooling="mean", max_length=32))
    encoder.set_precision("int8")
    return encoder


def products(encoder: SentenceEncoder) -> list[Int8Product]:
    linears = [module for module in encoder.modules() if isinstance(module, Linear)]
    return [found for linear in linears for found in (linear.int8, linear.int8_joined) if found]


def whole(values: Tensor, low: int, high: int) -> Tensor:
    return values.double().round().clamp(low, high)


@needs_vnni
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_the_product_is_that_of_whole_numbers(rows: int) -> None:
    torch.manual_seed(rows)
    layer = Linear(32, 48)
    values = torch.randn(rows, 32)
    product = smooth([layer], InputRange.measure_rows(values), dtype=DTYPE)
    with torch.inference_mode():
        found = product(values.to(product.dtype)).double()
    per_unit = product.levels_per_unit.double()
    levels = whole(values.to(product.dtype).double() * per_unit, -128, 127)  # (rows, 32)
    scales = product.weight_scales.double()[:, None]
    weights = whole(layer.weight / per_unit / scales, -127, 127)  # (48, 32)
    exact = levels @ (weights * scales).T + layer.bias.double()
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0.01)
    plain = torch.nn.functional.linear(values, layer.weight, layer.bias).double()
    assert (exact - plain).norm() < 0.02 * plain.norm()


@needs_vnni
def test_levels_go_from_layer_to_layer_through_gelu() -> None:
    torch.manual_seed(0)
    wide, narrow = Linear(32, 64), Linear(64, 32)
    values = torch.randn(50, 32)
    activated = torch.nn.functional.gelu(wide(values)).detach()
    levels = InputRange.measure_rows(activated).levels
    first = smooth([wide], InputRange.measure_rows(values), dtype=DTYPE, output=levels)
    weight, bias = narrow.weight.detach(), narrow.bias.detach()
    second = Int8Product.quantize(weight, bias, levels, dtype=DTYPE)
    with torch.inference_mode():
        between = first(values.to(first.dtype), "gelu")
        found = second(between).float()
    assert between.dtype == torch.uint8
    scale, zero_point = levels
    assert ((between.float() - zero_point) * scale - activated).abs().max() < 4 * scale
    exact = narrow(activated).detach()
    assert (found - exact).norm() < 0.03 * exact.norm()


@needs_vnni
def test_embeddings_stay_near_those_of_fp32(
    quantized: SentenceEncoder, tiny_encoder: SentenceEncoder
) -> None:
    assert quantized.backbone.precision == "int8"
    assert len(products(quantized)) == 2 * 4  # of each layer
    found, exact = quantized.encode(TEXTS), tiny_encoder.encode(TEXTS)
    assert not np.array_equal(found, exact)
    assert cosine(found, exact).min() > 0.99


@needs_vnni
def test_an_embedding_does_not_depend_on_its_neighbors(quantized: SentenceEncoder) -> None:
    alone = np.concatenate([quantized.encode([text]) for text in TEXTS])
    assert cosine(quantized.encode(TEXTS), alone).min() > 0.999


@needs_vnni
def test_the_same_model_is_rounded_the_same_way(
    quantized: SentenceEncoder, make_encoder: Callable[..., SentenceEncoder]
) -> None:
    again = make_encoder(ModelSettings(pooling="mean", max_length=32))
    again.set_precision("int8")
    again.set_precision("int8")  # of weights that are rounded by now
    assert cosine(again.encode(TEXTS), quantized.encode(TEXTS)).min() > 0.999
    assert quantized.tokenizer.truncated == 0


@needs_vnni
def test_another_precision_drops_it(quantized: SentenceEncoder) -> None:
    quantized.set_precision("fp32")
    assert quantized.backbone.precision == "fp32"
    assert not products(quantized)


@needs_vnni
def test_training_modules_are_untouched(quantized: SentenceEncoder) -> None:
    """Whoever asks for gradients gets those of the weights."""
    batch = quantized.tokenizer(TEXTS)
    quantized(batch).sum().backward()
    gradients = [weight.grad for weight in quantized.backbone.model.encoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@needs_vnni
@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SIZES, hidden_act="relu"),
        DistilBertConfig(vocab_size=90, dim=32, n_heads=2, hidden_dim=48, n_layers=2),
    ],
)
def test_other_architectures_are_refused(config: object) -> None:
    model = make_model(config)
    with pytest.raises(UsageError, match=f"with GELU on a CPU, not {type(model).__name__}"):
        quantize(Backbone(model), BATCH)


def test_a_processor_without_the_instructions_is_refused(
    tiny_encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ResourceError, match="VNNI"):
        tiny_encoder.set_precision("int8")

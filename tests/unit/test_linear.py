"""Linear layers in oneDNN's layout: what they compute, when, and when they notice a change."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel
from transformers.activations import GELUActivation

from simcse.model import kernels
from simcse.model.linear import GeluLinear, Linear, replace_linear

needs_onednn = pytest.mark.skipif(
    not kernels.has_packed_linear(), reason="needs a processor that multiplies bf16"
)


def bf16(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).bfloat16()


def model() -> BertModel:
    config = BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    return BertModel(config, add_pooling_layer=False).eval()


def packs(layer: nn.Module, values: Tensor) -> bool:
    with torch.inference_mode():
        layer(values)
    return layer._packed is not None


@pytest.fixture
def layer() -> Linear:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(32, 48).bfloat16())
    replace_linear(layers)
    assert isinstance(layers[0], Linear)
    return layers[0]


@needs_onednn
@pytest.mark.parametrize("rows", [1, 7, 64, 500])
@pytest.mark.parametrize("biased", [True, False])
def test_the_product_is_that_of_torch(layer: Linear, rows: int, biased: bool) -> None:
    layer.bias = layer.bias if biased else None
    values = bf16(1, rows, 32)
    bias = layer.bias.double() if biased else None
    exact = nn.functional.linear(values.double(), layer.weight.double(), bias)
    with torch.inference_mode():
        product, activated = layer(values), layer(values, activation="gelu")
    torch.testing.assert_close(product.double(), exact, atol=0.02, rtol=0.01)
    torch.testing.assert_close(activated.double(), nn.functional.gelu(exact), atol=0.02, rtol=0.01)


@needs_onednn
def test_a_changed_weight_is_laid_out_again(layer: Linear) -> None:
    values = bf16(5, 32)

    def check() -> None:
        with torch.inference_mode():
            product = layer(values)
        plain = nn.functional.linear(values, layer.weight, layer.bias)
        torch.testing.assert_close(product, plain, atol=0.02, rtol=0.01)

    check()
    with torch.no_grad():
        layer.weight.mul_(2)
    check()
    layer.weight.data = layer.weight.data * 3
    check()
    layer.load_state_dict({"weight": bf16(48, 32), "bias": bf16(48)})
    check()
    torch.optim.SGD([layer.weight], lr=0.5).step()
    layer.weight.grad = torch.ones_like(layer.weight)
    torch.optim.SGD([layer.weight], lr=0.5).step()
    check()


@pytest.mark.parametrize("biased", [True, False])
def test_layers_multiplied_together_are_those_multiplied_alone(biased: bool) -> None:
    torch.manual_seed(0)
    three = nn.ModuleList(nn.Linear(32, 48, bias=biased) for _ in range(3)).bfloat16()
    replace_linear(three)
    first, *others = three
    values = bf16(5, 32)

    def check() -> None:
        with torch.inference_mode():
            together = first.forward_with(values, others)
        for product, layer in zip(together, three, strict=True):
            alone = nn.functional.linear(values, layer.weight, layer.bias)
            torch.testing.assert_close(product, alone, atol=0.02, rtol=0.01)

    check()
    with torch.no_grad():
        others[1].weight.mul_(2)
    check()
    if biased:
        others[0].bias.data = bf16(48)
    check()


@needs_onednn
def test_nothing_is_laid_out_where_it_does_not_pay_or_cannot_be(layer: Linear) -> None:
    values = bf16(5, 32)
    layer(values).sum().backward()  # neither widens nor narrows much
    with torch.no_grad():  # exporters trace like this
        layer(values)
    assert layer._packed is None
    with torch.autocast("cpu", torch.bfloat16):
        assert not packs(layer, values)
    assert not packs(copy.deepcopy(layer).float(), values.float())
    with torch.inference_mode():
        assert not packs(copy.deepcopy(layer), values)
    assert packs(layer, values)


@needs_onednn
@pytest.mark.parametrize(("inner", "outer"), [(32, 96), (96, 32)])
@pytest.mark.parametrize("biased", [True, False])
def test_the_gradient_in_training_is_the_exact_one(inner: int, outer: int, biased: bool) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(inner, outer, bias=biased))
    exact = copy.deepcopy(layers).bfloat16().double()
    replace_linear(layers.bfloat16())
    values = bf16(2, 50, inner).requires_grad_()
    twin = values.detach().double().requires_grad_()
    for inputs, model in ((values, layers), (twin, exact)):
        model(inputs).square().sum().backward()
    assert layers[0]._packed is not None
    pairs = [(values.grad, twin.grad)] + [
        (ours.grad, theirs.grad)
        for ours, theirs in zip(layers.parameters(), exact.parameters(), strict=True)
    ]
    for ours, theirs in pairs:
        assert (ours.double() - theirs).norm() < 0.01 * theirs.norm()


@needs_onednn
def test_frozen_weights_and_inputs_get_no_gradient() -> None:
    layers = nn.Sequential(nn.Linear(32, 96).bfloat16())
    replace_linear(layers)
    layers[0].weight.requires_grad_(False)
    layers(bf16(5, 32)).sum().backward()
    assert layers[0].weight.grad is None
    torch.testing.assert_close(layers[0].bias.grad, torch.full((96,), 5.0).bfloat16())


@needs_onednn
def test_copies_do_not_share_the_layout(layer: Linear) -> None:
    assert packs(layer, bf16(5, 32))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._packed is None
        assert packs(other, bf16(5, 32))


def test_a_model_keeps_its_names_and_its_results() -> None:
    torch.manual_seed(0)
    plain = model()
    replaced = copy.deepcopy(plain)
    for _ in range(2):  # doing it again changes nothing
        replace_linear(replaced)
    assert list(plain.state_dict()) == list(replaced.state_dict())
    assert isinstance(replaced.encoder.layer[0].intermediate, GeluLinear)
    ids = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        assert torch.equal(plain(ids)[0], replaced(ids)[0])
    replaced.bfloat16()
    with torch.inference_mode():
        ours = replaced(ids)[0].float()
        torch.testing.assert_close(ours, plain(ids)[0], atol=0.1, rtol=0)
    assert isinstance(replaced.encoder.layer[0].intermediate.intermediate_act_fn, GELUActivation)


def test_another_activation_stays_where_it_is() -> None:
    relu = BertModel(BertConfig(**{**model().config.to_dict(), "hidden_act": "relu"}))
    replace_linear(relu)
    assert not isinstance(relu.encoder.layer[0].intermediate, GeluLinear)
    assert isinstance(relu.encoder.layer[0].intermediate.dense, Linear)

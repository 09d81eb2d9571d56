"""Our dropout has torch's statistics."""

import math

import pytest
import torch
from torch import nn

from simcse.model.dropout import Dropout, dropout, replace_dropout

COUNT = 400_000


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    dropped = dropout(torch.ones(COUNT), rate)
    share = (dropped == 0).float().mean().item()
    deviation = math.sqrt(rate * (1 - rate) / COUNT)
    assert share == pytest.approx(rate, abs=5 * deviation + 2**-16)
    kept = dropped[dropped != 0]
    assert kept.unique().tolist() == [pytest.approx(1 / (1 - rate), rel=2**-12)]


def test_elements_of_one_draw_are_independent() -> None:
    torch.manual_seed(0)
    kept = (dropout(torch.ones(COUNT), 0.5) != 0).float() - 0.5
    for distance in (1, 2, 3, 4, 8):  # four elements share one 64-bit draw
        correlation = (kept[:-distance] * kept[distance:]).mean().item() * 4
        assert abs(correlation) < 5 / math.sqrt(COUNT)


def test_two_passes_are_independent() -> None:
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(COUNT), 0.1) == 0 for _ in range(2))
    both = (first & second).float().mean().item()
    assert both == pytest.approx(0.01, abs=5 * math.sqrt(0.01 / COUNT))


def test_a_seed_gives_the_same_mask() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropout(torch.ones(1001), 0.3))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 3, 5)])
def test_rates_0_and_1_and_any_shape(shape: tuple[int, ...]) -> None:
    values = torch.full(shape, 3.0)
    assert torch.equal(dropout(values, 0.0), values)
    assert torch.equal(dropout(values, 1.0), torch.zeros(shape))
    assert dropout(values, 0.5).shape == shape


def test_gradient_passes_where_values_passed() -> None:
    values = torch.ones(1000, requires_grad=True)
    result = dropout(values, 0.25)
    result.sum().backward()
    assert torch.equal(values.grad, result.detach())


def test_bf16_stays_bf16() -> None:
    assert dropout(torch.ones(8, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16


def test_active_while_training_only() -> None:
    layer, values = Dropout(0.5), torch.ones(100)
    assert torch.equal(layer.eval()(values), values)
    assert not torch.equal(layer.train()(values), values)


def test_replacing_keeps_rates_unless_told() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
    replace_dropout(model)
    rates = [module.p for module in model.modules() if isinstance(module, Dropout)]
    assert rates == [0.3, 0.2]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    replace_dropout(model, 0.05)
    assert [m.p for m in model.modules() if isinstance(m, Dropout)] == [0.05, 0.05]

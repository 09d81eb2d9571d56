"""Our dropout has the statistics of independent draws, and is a function of its key alone."""

import math

import pytest
import torch
from torch import Tensor, nn

from simcse.model.dropout import (
    Dropout,
    DropoutRng,
    dropout,
    dropout_key,
    keep_mask,
    replace_dropout,
)

TOKENS, WIDTH = 1000, 400
COUNT = TOKENS * WIDTH


def make_rng(key: int | None = 0, tokens: int = TOKENS) -> DropoutRng:
    """DropoutRng at the start of a pass over one sentence."""
    rng = DropoutRng()
    rng.key = key
    rng.token_seeds = rng.begin(torch.zeros(tokens, dtype=torch.int64), torch.arange(tokens))[None]
    return rng


def dropped(rng: DropoutRng, rate: float = 0.1) -> Tensor:
    return dropout(torch.ones(1, TOKENS, WIDTH), rate, rng) == 0


def correlation(first: Tensor, second: Tensor) -> float:
    """Correlation of two masks in units of its standard deviation under independence."""
    together = torch.stack([first.flatten().double(), second.flatten().double()])
    return torch.corrcoef(together)[0, 1].item() * math.sqrt(first.numel())


def splitmix64(state: int) -> int:
    """One output in plain integers: Steele, Lea and Flood 2014, figure 16."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def test_a_mask_by_plain_integers() -> None:
    key, layer_index, golden, rate = 3, 2, 0x9E3779B97F4A7C15, 0.5
    rng = make_rng(key, tokens=2)
    mask = keep_mask(rng.token_seeds, layer_index, torch.Size([2, 2, 6]), rate)  # 2 heads, 2 tokens
    for head in range(2):
        for position in range(2):
            row = splitmix64(position * golden + key)
            for i in range(6):
                counter = (layer_index << 32) + (head << 16) + i // 4
                word = splitmix64((row + counter * golden) % 2**64)
                number = (word >> 16 * (i % 4)) % 2**16
                kept = (number + 2**15) % 2**16 >= rate * 2**16  # as a signed number
                assert mask[head, position, i].item() == (-1 if kept else 0)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_rate_and_scale(rate: float) -> None:
    values = dropout(torch.ones(1, TOKENS, WIDTH), rate, make_rng())
    deviation = math.sqrt(rate * (1 - rate) / COUNT)
    share = (values == 0).float().mean().item()
    assert share == pytest.approx(rate, abs=5 * deviation + 2**-16)
    kept = values[values != 0]
    assert kept.unique().tolist() == [pytest.approx(1 / (1 - rate), rel=2**-12)]


def test_rates_of_rows_and_columns_scatter_as_independent_draws_do() -> None:
    mask = dropped(make_rng(), 0.5).double()[0]
    for shares, draws in ((mask.mean(0), TOKENS), (mask.mean(1), WIDTH)):
        chi2 = ((shares - 0.5) ** 2 * draws / 0.25).sum().item()
        freedom = len(shares)
        assert abs(chi2 - freedom) < 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 64])  # four elements share one word
def test_neighbors_are_independent(distance: int, rate: float) -> None:
    mask = dropped(make_rng(), rate)[0]
    assert abs(correlation(mask[:, :-distance], mask[:, distance:])) < 5
    assert abs(correlation(mask[:-distance], mask[distance:])) < 5


def test_layers_steps_seeds_parts_and_passes_are_independent() -> None:
    rng = make_rng(dropout_key(0, 0))
    masks = [dropped(rng), dropped(rng)]  # two layers
    masks += [dropped(make_rng(dropout_key(*key))) for key in ((0, 1), (1, 0), (0, 0, 1), (1, 1))]
    second = make_rng(dropout_key(0, 0))
    again = second.begin(torch.ones(TOKENS, dtype=torch.int64), torch.arange(TOKENS))
    second.token_seeds = again[None]  # the same sentence, standing in the batch once more
    masks.append(dropped(second))
    for i, first in enumerate(masks):
        for other in masks[:i]:
            assert abs(correlation(first, other)) < 5


def test_heads_are_independent() -> None:
    rng = make_rng(tokens=32)
    heads = keep_mask(rng.token_seeds, 1, torch.Size([400, 32, 32]), 0.1)  # of one sentence
    assert abs(correlation(heads[:-1] == 0, heads[1:] == 0)) < 5


def test_a_key_gives_the_same_mask_whatever_the_threads() -> None:
    masks = []
    threads = torch.get_num_threads()
    for count in (1, threads):
        torch.set_num_threads(count)
        masks.append(dropped(make_rng(7)))
    assert torch.equal(*masks)


def test_without_a_key_torch_s_generator_decides() -> None:
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(dropped(make_rng(None)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_padding_a_weight_matrix_changes_no_token_s_mask() -> None:
    rows = make_rng(tokens=6).token_seeds.view(2, 3)  # 2 sentences of 3 tokens
    small = keep_mask(rows, 5, torch.Size([2, 4, 3, 3]), 0.5)  # 4 heads
    padded = nn.functional.pad(rows, (0, 5))
    large = keep_mask(padded, 5, torch.Size([8, 8, 8]), 0.5).view(2, 4, 8, 8)
    assert torch.equal(small, large[:, :, :3, :3])


@pytest.mark.parametrize("shape", [(1, 3), (5, 7), (2, 3, 5), (2, 2, 3, 5)])
def test_rates_0_and_1_and_any_shape(shape: tuple[int, ...]) -> None:
    values, rng = torch.full(shape, 3.0), make_rng(tokens=3)
    assert torch.equal(dropout(values, 0.0, rng), values)
    assert torch.equal(dropout(values, 1.0, rng), torch.zeros(shape))
    assert dropout(values, 0.5, rng).shape == shape


def test_gradient_passes_where_values_passed() -> None:
    values = torch.ones(1, 10, 100, requires_grad=True)
    result = dropout(values, 0.25, make_rng(tokens=10))
    result.sum().backward()
    assert torch.equal(values.grad, result.detach())


def test_every_precision_has_the_same_mask() -> None:
    masks = []
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        values = dropout(torch.ones(1, 10, 100, dtype=dtype), 0.5, make_rng(tokens=10))
        assert values.dtype == dtype
        masks.append(values == 0)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_active_while_training_only() -> None:
    layer, values = Dropout(0.5, make_rng(tokens=10)), torch.ones(1, 10, 100)
    assert torch.equal(layer.eval()(values), values)
    assert not torch.equal(layer.train()(values), values)


def test_replacing_preserves_rates_unless_one_is_given() -> None:
    model = nn.Sequential(nn.Dropout(0.3), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.2)))
    replace_dropout(model, DropoutRng())
    rates = [module.p for module in model.modules() if isinstance(module, Dropout)]
    assert rates == [0.3, 0.2]
    assert not any(isinstance(module, nn.Dropout) for module in model.modules())
    replace_dropout(model, DropoutRng(), 0.05)
    assert [m.p for m in model.modules() if isinstance(m, Dropout)] == [0.05, 0.05]

"""Poolings against plain loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from simcse.errors import ConfigError
from simcse.model.pooling import POOLINGS, SPECS, Pooling, cls_pool, mean_pool, pool
from simcse.model.settings import ModelSettings

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


def make_states(lengths: list[int], count: int = 4, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(sum(lengths), 5, generator=generator) for _ in range(count)]


LAYERS = {
    "mean": [-1],
    "mean_last_two": [-2, -1],
    "mean_first_last": [1, -1],
    "mean_embedding_last": [0, -1],
}


def looped(
    states: list[Tensor], lengths: list[int], pooling: Pooling, weights: list[float]
) -> Tensor:
    """One sentence, one layer, one token at a time."""
    rows, start = [], 0
    for length in lengths:
        total = torch.zeros(5, dtype=torch.float64)
        if pooling == "cls":
            total += states[-1][start]
        else:
            whole = sum(weights[start : start + length]) * len(LAYERS[pooling])
            for layer in LAYERS[pooling]:
                for token in range(start, start + length):
                    total += states[layer][token] * weights[token] / whole
        rows.append(total)
        start += length
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(lengths=LENGTHS, seed=st.integers(0, 100))
def test_pooling_equals_loops(pooling: Pooling, lengths: list[int], seed: int) -> None:
    states = make_states(lengths, seed=seed)
    picked = [states[layer] for layer in SPECS[pooling].layers]
    pooled = pool(picked, torch.tensor(lengths), pooling)
    expected = looped(states, lengths, pooling, [1.0] * sum(lengths))
    torch.testing.assert_close(pooled.double(), expected, atol=1e-6, rtol=1e-6)
    weights = torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed)) + 0.01
    pooled = pool(picked, torch.tensor(lengths), pooling, weights)
    expected = looped(states, lengths, pooling, weights.tolist())
    torch.testing.assert_close(pooled.double(), expected, atol=1e-5, rtol=1e-5)


def test_bf16_states_are_pooled_in_fp32() -> None:
    states = [torch.full((300, 1), 1.0078125, dtype=torch.bfloat16)]  # 1 + 2**-7, the least step
    pooled = pool(states, torch.tensor([300]), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(1.0078125, abs=1e-6)


@pytest.mark.parametrize("reduce", [cls_pool, mean_pool])
def test_gradient_reaches_its_own_sentence_only(reduce: object) -> None:
    hidden = make_states([3, 2, 4], 1)[0].requires_grad_()
    reduce(hidden, torch.tensor([3, 2, 4]))[1].sum().backward()
    touched = hidden.grad.abs().sum(1) > 0
    assert touched.tolist() == [False] * 3 + [True, reduce is mean_pool] + [False] * 4


def test_one_layer_model_has_the_same_first_and_last() -> None:
    states = make_states([4], count=2)
    picked = [states[layer] for layer in SPECS["mean_first_last"].layers]
    pooled = pool(picked, torch.tensor([4]), "mean_first_last")
    torch.testing.assert_close(pooled, pool(states[-1:], torch.tensor([4]), "mean"))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"pooling": "avg"}, "pooling must be one of cls, mean.*got 'avg'"),
        ({"pooling": "mean", "head": "mlp"}, "head must be one of none.*got 'mlp'"),
        ({"pooling": "mean", "max_length": 2}, "max_length must be at least 3, got 2"),
    ],
)
def test_settings_check_themselves(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ModelSettings(**values)

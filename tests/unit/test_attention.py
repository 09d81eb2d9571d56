"""Packed attention against one sentence at a time in plain softmax."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from simcse.model.attention import (
    PACKED,
    PackingPlan,
    packed_attention,
    plan_packing,
    register,
    rounded_up,
)
from simcse.model.dropout import DropoutRng

LENGTHS = [1, 1, 3, 6, 6, 6, 8, 9, 17]  # three blocks: up to 8, 16 and 24
PLAN = plan_packing(LENGTHS, torch.device("cpu"))


def make_qkv(seed: int = 0, *, gradient: bool = False) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, 2, sum(LENGTHS), 4)  # (1, H, T, Dh)
    return [torch.randn(shape, generator=generator).requires_grad_(gradient) for _ in range(3)]


def make_plan(key: int | None = None) -> PackingPlan:
    """The plan of a training pass."""
    rng = DropoutRng()
    rng.key = key
    sentences = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    token_seeds = rng.begin(sentences, torch.arange(sum(LENGTHS)))
    return plan_packing(LENGTHS, torch.device("cpu"), dropout_rng=rng, token_seeds=token_seeds)


def run(
    qkv: list[Tensor], plan: PackingPlan = PLAN, *, window: int | None = None, rate: float = 0.0
) -> Tensor:
    output, weights = packed_attention(
        nn.Identity(),
        *qkv,
        None,
        packing_plan=plan,
        scaling=0.5,
        dropout=rate,
        sliding_window=window,
    )
    assert weights is None
    return output


def looped(qkv: list[Tensor], window: int | None, *, lengths: Sequence[int] = LENGTHS) -> Tensor:
    """One head, one query token at a time: softmax over its own sentence's tokens in reach."""
    query, key, value = (x[0].double() for x in qkv)  # (H, T, Dh)
    output = torch.zeros(query.shape[1], query.shape[0], query.shape[2], dtype=torch.float64)
    start = 0
    for length in lengths:
        for head in range(query.shape[0]):
            for i in range(start, start + length):
                seen = [
                    j for j in range(start, start + length) if window is None or abs(i - j) < window
                ]
                scores = torch.stack([query[head, i] @ key[head, j] * 0.5 for j in seen])
                weights = scores.softmax(0)
                output[i, head] = sum(
                    w * value[head, j] for w, j in zip(weights, seen, strict=True)
                )
        start += length
    return output.unsqueeze(0)  # (1, T, H, Dh)


@pytest.mark.parametrize("gradient", [False, True])  # the two implementations
@pytest.mark.parametrize("window", [None, 1, 2, 4, 6, 100])
def test_attention_equals_loops(window: int | None, gradient: bool) -> None:
    output = run(make_qkv(gradient=gradient), window=window)
    expected = looped(make_qkv(), window)
    torch.testing.assert_close(output.detach().double(), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("filler", [0, 3])
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("window", [None, 1, 4, 100])
def test_one_sentence_attends_where_it_stands(
    window: int | None, gradient: bool, filler: int
) -> None:
    qkv = [x[:, :, -17:].detach() for x in make_qkv()]
    expected = looped(qkv, window, lengths=[17])
    padded = [
        nn.functional.pad(x, (0, 0, 0, filler), value=9.0).requires_grad_(gradient) for x in qkv
    ]
    plan = plan_packing([17], torch.device("cpu"))
    assert plan.is_single
    output = run(padded, plan, window=window).detach().double()
    torch.testing.assert_close(output[:, :17], expected, atol=1e-6, rtol=1e-5)
    assert output.shape[1] == 17 + filler
    assert (output[:, 17:] == 0).all()


def test_queries_keys_and_values_may_be_views_of_one_product() -> None:
    joined = torch.cat([x.transpose(1, 2) for x in make_qkv()], dim=-2)  # (1, T, 3 H, Dh)
    views = [x.transpose(1, 2) for x in joined.chunk(3, dim=2)]
    assert not any(x[0].transpose(0, 1).is_contiguous() for x in views)
    assert torch.equal(run(views), run(make_qkv()))


def test_gradient_stays_in_the_sentence() -> None:
    qkv = make_qkv(gradient=True)
    run(qkv)[0, 5:11].square().sum().backward()  # the first sentence of 6 tokens
    for x in qkv:
        touched = x.grad[0].abs().sum((0, 2)) > 0
        assert touched.tolist() == [False] * 5 + [True] * 6 + [False] * 46


def test_gradient_is_right() -> None:
    qkv = [x.detach().double().requires_grad_() for x in make_qkv()]
    assert torch.autograd.gradcheck(lambda *x: run(list(x), window=3), qkv)


def test_dropout_draws_anew_and_preserves_the_mean() -> None:
    qkv = make_qkv()
    outputs = torch.stack([run(qkv, make_plan(key), rate=0.2) for key in range(2000)])
    assert not torch.equal(outputs[0], outputs[1])
    torch.testing.assert_close(outputs.mean(0), run(qkv), atol=0.12, rtol=0)


def test_gradient_with_dropout_is_right() -> None:
    qkv = [x.detach().double().requires_grad_() for x in make_qkv()]
    assert torch.autograd.gradcheck(lambda *x: run(list(x), make_plan(1), rate=0.3), qkv)


def test_a_layout_by_hand() -> None:
    plan = plan_packing([2, 17], torch.device("cpu"))
    assert plan.blocks == ((1, 16), (1, 32))
    assert plan.tokens.tolist() == [0, 1, *14 * [0], *range(2, 19), *15 * [0]]
    assert plan.slots.tolist() == [0, 1, *range(16, 33)]
    assert plan.empty.tolist() == [*range(2, 16), *range(33, 48)]
    assert [bias.flatten().tolist() for bias in plan.biases] == [
        2 * [0.0] + 14 * [-math.inf],
        17 * [0.0] + 15 * [-math.inf],
    ]


def test_large_blocks_have_empty_sentences() -> None:
    plan = plan_packing([3] * 33 + [17], torch.device("cpu"))
    assert plan.blocks == ((36, 16), (1, 32))
    assert plan.slots.tolist() == [16 * i + j for i in range(33) for j in range(3)] + [
        *range(36 * 16, 36 * 16 + 17)
    ]
    assert plan.tokens[plan.slots].tolist() == [*range(33 * 3 + 17)]
    assert all((bias == 0).any(-1).all() for bias in plan.biases)


@pytest.mark.parametrize("steps", [1, 4, 16, 64])
def test_rounding_up_leaves_few_sizes_close_by(steps: int) -> None:
    rounded = [rounded_up(count, steps) for count in range(1, 1025)]
    for count, size in enumerate(rounded, 1):
        assert count <= size < count * (1 + 2 / steps) + (steps == 1)
    assert rounded == sorted(rounded)
    assert len({size for size in rounded if 512 < size <= 1024}) <= steps


def test_registering_twice_changes_nothing() -> None:
    register()
    register()
    assert AttentionInterface()[PACKED] is packed_attention

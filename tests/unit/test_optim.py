"""AdamW on fp32 masters, and the schedules."""

import copy
import math

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from simcse.train.optim import OptimConfig, Optimizer, learning_rate

STEPS = 20


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))


def batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(32, 8, generator=generator), torch.randn(32, 4, generator=generator)


def backward(model, step):
    inputs, targets = batch(step)
    dtype = next(model.parameters()).dtype
    nn.functional.mse_loss(model(inputs.to(dtype)).float(), targets).backward()


def train(model, config, *, masters, steps=STEPS):
    optimizer = Optimizer(model.parameters(), config, masters=masters)
    model.to(torch.bfloat16 if masters else torch.float32)
    for step in range(steps):
        backward(model, step)
        optimizer.gradient_norm()
        optimizer.step(learning_rate(config, step, steps))
    return optimizer


def torch_train(model, config, *, fused, steps=STEPS):
    """The same by torch's AdamW and clipping, with biases out of the decay."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1]},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
    for step in range(steps):
        adam.zero_grad()
        backward(model, step)
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        for group in adam.param_groups:
            group["lr"] = learning_rate(config, step, steps)
        adam.step()
    return model


def vector(model):
    return torch.cat([p.detach().float().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("schedule", "theirs"),
    [("linear", get_linear_schedule_with_warmup), ("cosine", get_cosine_schedule_with_warmup)],
)
def test_without_warmup_the_schedule_is_hugging_faces(schedule, theirs):
    config = OptimConfig(lr=3e-5, schedule=schedule)
    adam = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=config.lr)
    scheduler = theirs(adam, 0, STEPS)
    for step in range(STEPS):
        assert learning_rate(config, step, STEPS) == pytest.approx(scheduler.get_last_lr()[0])
        adam.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("constant", lambda done: 1.0),
        ("linear", lambda done: 1 - done),
        ("cosine", lambda done: math.cos(math.pi / 2 * done) ** 2),
    ],
)
def test_the_rate_rises_over_the_warmup_and_then_follows_the_schedule(schedule, after):
    config = OptimConfig(lr=2.0, schedule=schedule, warmup=0.4)
    rates = [learning_rate(config, step, 10) for step in range(10)]
    rising = [2.0 * k / 4 for k in (1, 2, 3, 4)]  # never a step at rate 0
    falling = [2.0 * after(k / 6) for k in range(6)]
    assert rates == pytest.approx(rising + falling)


def test_a_run_of_one_step_has_the_full_rate():
    assert learning_rate(OptimConfig(lr=2.0), 0, 1) == 2.0
    assert learning_rate(OptimConfig(lr=2.0, warmup=0.9), 0, 1) == 2.0


def test_without_masters_it_is_torchs_adamw():
    config = OptimConfig(lr=1e-2, weight_decay=0.1, clip_norm=0.5, schedule="cosine")
    start = network()
    ours = copy.deepcopy(start)
    optimizer = train(ours, config, masters=False)
    assert all(a is b for a, b in zip(optimizer.masters, ours.parameters(), strict=True))
    assert torch.equal(vector(ours), vector(torch_train(copy.deepcopy(start), config, fused=True)))
    plain = torch_train(copy.deepcopy(start), config, fused=False)
    torch.testing.assert_close(vector(ours), vector(plain), rtol=0, atol=1e-6)


def test_decay_pulls_matrices_only():
    config = OptimConfig(lr=0.1, weight_decay=0.5, schedule="constant")
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(2.0)
    optimizer = Optimizer(model.parameters(), config)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(config.lr)
    assert torch.allclose(model.weight, torch.tensor(2.0 * (1 - 0.1 * 0.5)))
    assert torch.equal(model.bias, torch.full((2,), 2.0))


def test_bf16_weights_follow_an_fp32_run():
    """Updates of 1e-4 are below the spacing of bf16 near 1; without masters they would be lost."""
    config = OptimConfig(lr=1e-4)
    start = network()
    exact, ours, naive = (copy.deepcopy(start) for _ in range(3))
    train(exact, config, masters=False)
    optimizer = train(ours, config, masters=True)
    torch_train(naive.to(torch.bfloat16), config, fused=False)

    moved = (vector(exact) - vector(start)).norm()
    masters = torch.cat([m.detach().flatten() for m in optimizer.masters])
    assert (masters - vector(exact)).norm() < 0.15 * moved  # gradients are of bf16 weights
    assert (vector(naive) - vector(exact)).norm() > 0.5 * moved
    assert torch.equal(vector(ours), masters.bfloat16().float())
    assert {p.dtype for p in ours.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("masters", [False, True])
def test_gradients_over_the_norm_are_scaled_down_to_it(masters):
    for clip_norm, expected in [(1.0, 1.0), (0.0, 10.0), (20.0, 10.0)]:
        weight = nn.Parameter(torch.ones(4))
        optimizer = Optimizer([weight], OptimConfig(clip_norm=clip_norm), masters=masters)
        weight.data = weight.data.bfloat16() if masters else weight.data
        weight.grad = torch.full_like(weight, 5.0)
        assert optimizer.gradient_norm() == 10.0
        assert optimizer.masters[0].grad.norm().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("masters", [False, True])
def test_a_step_clears_the_gradients(masters):
    model = network()
    optimizer = train(model, OptimConfig(), masters=masters, steps=1)
    assert all(x.grad is None for x in (*optimizer.weights, *optimizer.masters))


@pytest.mark.parametrize("masters", [False, True])
def test_gradients_from_before_are_not_applied(masters):
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, math.nan)
    train(model, OptimConfig(), masters=masters, steps=1)
    assert vector(model).isfinite().all()


def test_a_weight_that_gets_no_gradient_stays():
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "idle": nn.Linear(2, 2)})
    before = vector(model["idle"])
    optimizer = Optimizer(model.parameters(), OptimConfig(lr=0.1, weight_decay=0.1), masters=True)
    model["used"](torch.ones(1, 2)).sum().backward()
    assert optimizer.gradient_norm() > 0
    optimizer.step(0.1)
    assert torch.equal(vector(model["idle"]), before)


def test_masters_in_place_gives_fp32_and_takes_it_back():
    model = network()
    optimizer = train(model, OptimConfig(lr=1e-3), masters=True)
    rounded, places = vector(model), [p.data_ptr() for p in model.parameters()]
    with optimizer.masters_in_place():
        held = [p.detach().clone() for p in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(held, optimizer.masters, strict=True))
    assert {p.dtype for p in held} == {torch.float32}

    with pytest.raises(KeyboardInterrupt), optimizer.masters_in_place():
        raise KeyboardInterrupt
    assert torch.equal(vector(model), rounded)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert [p.data_ptr() for p in model.parameters()] == places


def test_frozen_weights_are_kept_in_fp32_too():
    model = network()
    model[0].requires_grad_(False)
    start = copy.deepcopy(model)
    optimizer = train(model, OptimConfig(lr=1e-2), masters=True, steps=3)
    with optimizer.masters_in_place():
        assert torch.equal(vector(model[0]), vector(start[0]))
        assert not torch.equal(vector(model[2]), vector(start[2]))

"""The loss of a batch from its examples, and its gradient whatever the pieces."""

import math

import numpy as np
import pytest
import torch

from simcse.io.examples import Example
from simcse.loss import LossConfig, spread_penalty
from simcse.model.mlm import MlmHead
from simcse.train.objective import Objective

SENTENCES = ["the man is eating", "a dog runs", "she plays the guitar", "two cats", "a woman eats"]
ROWS = [Example(sentence) for sentence in SENTENCES]


def test_the_objective_is_the_loss_of_its_parts(tiny_encoder):
    """Hard negatives, any number a row; duplicates left out; a positive of None is the anchor."""
    rows = [Example("a", "b", ("c", "dog")), Example("cat"), Example("man", "a", ("run",))]
    config = LossConfig(temperature=0.1, hard_negative_weight=2.0)
    total = Objective(tiny_encoder.eval(), config).backward(rows, 1).total.item()

    h = {text: v / np.linalg.norm(v) for text in "a b c dog cat man run".split()
         for v in tiny_encoder.encode([text]).astype(float)}  # fmt: skip

    def term(first, second, weight=1.0):
        return weight * math.exp(float(h[first] @ h[second]) / 0.1)

    def row_loss(own, *others):
        return -math.log(own / (own + sum(others)))

    expected = [
        row_loss(term("a", "b"), term("a", "cat"), term("a", "c", 2.0), term("a", "dog", 2.0),
                 term("a", "run")),  # the third row's positive is this anchor: left out
        row_loss(term("cat", "cat"), term("cat", "b"), term("cat", "a"), term("cat", "c"),
                 term("cat", "dog"), term("cat", "run")),
        row_loss(term("man", "a"), term("man", "b"), term("man", "cat"), term("man", "c"),
                 term("man", "dog"), term("man", "run", 2.0)),
    ]  # fmt: skip
    assert total == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("kind", ["uniformity", "spectrum"])
def test_the_regulariser_is_added_for_the_anchors(tiny_encoder, kind):
    plain, spread = LossConfig(), LossConfig(regulariser=kind, regulariser_weight=0.5)
    losses = [
        Objective(tiny_encoder.eval(), config).backward(ROWS, 1).total.item()
        for config in (plain, spread)
    ]
    anchors = torch.from_numpy(tiny_encoder.encode([row.anchor for row in ROWS]))
    expected = 0.5 * spread_penalty(anchors, kind).item()
    assert losses[1] - losses[0] == pytest.approx(expected, abs=1e-5)


def gradients(encoder, rows, *, chunk_tokens, config):
    """Loss and gradient of one batch, dropout on."""
    torch.manual_seed(0)
    head = MlmHead(encoder.backbone).to(next(encoder.parameters()).dtype)
    encoder.backbone.set_dropout(0.3)
    objective = Objective(encoder.train(), config, seed=3, chunk_tokens=chunk_tokens, mlm_head=head)
    objective.zero_grad()
    parts = objective.backward(rows, 5)
    return parts, torch.cat([p.grad.flatten() for p in objective.parameters()])


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk_tokens", [1, 12, 40])
def test_gradient_caching_is_exact_with_dropout_on(tiny_encoder, chunk_tokens, dtype, accuracy):
    encoder, config = tiny_encoder.to(dtype), LossConfig(mlm_weight=0.5, mlm_rate=0.4)
    rows = [*ROWS, Example("cat", "a dog", ("the man", "run"))]
    whole, expected = gradients(encoder, rows, chunk_tokens=10**6, config=config)
    parts, gradient = gradients(encoder, rows, chunk_tokens=chunk_tokens, config=config)
    assert parts.total.item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert ((gradient - expected).norm() / expected.norm()).item() < accuracy

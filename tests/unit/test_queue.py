"""ESimCSE's momentum queue: what is in it, who made it, and what it adds to the loss."""

import math

import numpy as np
import pytest
import torch

from simcse.errors import ConfigError
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.pooling import pool
from simcse.model.settings import ModelSettings
from simcse.train.loop import Stepper
from simcse.train.objective import Objective
from simcse.train.optim import OptimConfig
from simcse.train.queue import MomentumQueue, text_keys
from simcse.train.settings import ModelConfig, TrainConfig

FIRST = [Example("the man is eating"), Example("a dog runs"), Example("two cats")]
SECOND = [Example("a dog runs"), Example("she plays", "the man is eating", ("a cat",))]


def unit(rows):
    return torch.nn.functional.normalize(torch.as_tensor(rows).double())


def test_the_queue_keeps_the_latest_and_marks_equal_texts(tiny_encoder):
    queue = MomentumQueue(tiny_encoder, 4)
    rows = torch.randn(6, 32)
    queue.push(rows[:3], ["a", "b", "c"])
    queue.push(rows[3:], ["d", "e", "f"])
    assert torch.equal(queue.embeddings, rows[2:])
    assert torch.equal(queue.keys, text_keys(["c", "d", "e", "f"]))
    marked = queue.same_text(["d", "x"], ["f", "y"])
    assert marked.tolist() == [[False, True, False, True], [False] * 4]
    assert len(set(text_keys([str(i) for i in range(1000)]).tolist())) == 1000
    queue.clear()
    assert queue.embeddings.shape == (0, 32)
    assert queue.same_text(["d"], ["f"]).shape == (1, 0)


@pytest.mark.parametrize("micro_batch_tokens", [1, 10**6])
def test_earlier_anchors_are_further_negatives(make_encoder, micro_batch_tokens):
    """Of the copy, without dropout; against loops. The text of a row is none of its negatives."""
    encoder = make_encoder(ModelSettings("mean", "train_only", 32))
    encoder.backbone.set_dropout(0.3)
    queue = MomentumQueue(encoder, 5)
    with torch.no_grad():
        for parameter in queue.encoder.parameters():
            parameter.mul_(1.05)  # it is not the encoder
    config = LossConfig(temperature=0.2, queue=5)
    objective = Objective(
        encoder, config, seed=3, queue=queue, micro_batch_tokens=micro_batch_tokens
    ).train()
    seen = []

    def spy(own, rows):
        seen.append({name: unit(embedded.detach()) for name, embedded in own.items()})
        return Objective._loss(objective, own, rows)

    objective._loss = spy
    first = objective.backward(FIRST, 1).total.item()
    empty = Objective(encoder, LossConfig(temperature=0.2), seed=3).train().backward(FIRST, 1)
    assert first == pytest.approx(empty.total.item(), rel=1e-5)  # nothing is in it yet
    usual = queue.encoder.eval()
    batch = usual.tokenizer([row.anchor for row in FIRST])
    lengths = torch.tensor(batch.lengths)
    pooled = batch.unsort(pool(usual.backbone(batch), lengths, "mean"))
    torch.testing.assert_close(queue.embeddings, usual.head(pooled), atol=1e-5, rtol=1e-5)
    objective.train()
    waiting = unit(queue.embeddings)
    total = objective.backward(SECOND, 2).total.item()
    assert total == pytest.approx(in_loops(seen[1], waiting), rel=1e-4)
    latest = [row.anchor for row in (*FIRST, *SECOND)]
    assert torch.equal(queue.keys, text_keys(latest))


def in_loops(own, waiting):
    """The loss of ``SECOND`` with ``FIRST`` in the queue."""
    candidates = [*own["positives"], *own["negatives"], *waiting]
    texts = ["a dog runs", "the man is eating", "a cat", *(row.anchor for row in FIRST)]
    losses = []
    for i, row in enumerate(SECOND):
        terms = [math.exp(float(own["anchors"][i] @ other) / 0.2) for other in candidates]
        rest = [
            term
            for j, (text, term) in enumerate(zip(texts, terms, strict=True))
            if j != i and text not in (row.anchor, row.positive)
        ]
        losses.append(-math.log(terms[i] / (terms[i] + sum(rest))))
    return np.mean(losses)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_copy_follows_the_encoder_in_fp32(make_encoder, precision):
    """Against the recursion in loops: in bf16 steps this small would be lost."""
    encoder = make_encoder(ModelSettings("mean", max_length=32))
    config = TrainConfig(
        precision=precision,
        loss=LossConfig(queue=4, momentum=0.9),
        optim=OptimConfig(lr=1e-3, batch_size=2, weight_decay=0.1),
    )
    stepper = Stepper(encoder, config, 10, None)
    queue, optimizer = stepper.objective.queue, stepper.optimizer
    masters = dict(zip(optimizer.weights, optimizer.masters, strict=True))

    def fp32(module):
        return [masters[p].detach().clone() for p in module.parameters()]

    expected = fp32(encoder)
    for step in range(1, 4):
        stepper.update(step, FIRST)
        expected = [0.9 * old + 0.1 * new for old, new in zip(expected, fp32(encoder), strict=True)]
    for held, wanted in zip(fp32(queue.encoder), expected, strict=True):
        torch.testing.assert_close(held, wanted, rtol=1e-6, atol=1e-7)
    for p in queue.encoder.parameters():
        assert torch.equal(p, masters[p].to(p.dtype))
        assert p.grad is None
    assert any(not torch.equal(a, b) for a, b in zip(fp32(encoder), expected, strict=True))
    assert len(queue.embeddings) == 4


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"queue": -1}, "loss.queue must be >= 0"),
        ({"queue": 8, "momentum": 1.0}, "loss.momentum from 0 to below 1"),
        ({"queue": 8, "form": "classifier"}, "loss.queue=8 cannot be part of it"),
    ],
)
def test_a_queue_out_of_range_is_refused(loss, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**loss)


def test_a_queue_follows_one_encoder():
    with pytest.raises(ConfigError, match="loss.queue is made for one encoder"):
        TrainConfig(loss=LossConfig(queue=8), model=ModelConfig(num_encoders=2))

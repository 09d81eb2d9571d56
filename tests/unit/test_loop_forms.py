"""Training in other forms: a second tower, a classifier of labeled pairs."""

import math

import numpy as np
import pytest
import torch

from simcse.errors import ConfigError
from simcse.io.records import Example
from simcse.loss import LossConfig
from simcse.model.settings import ModelSettings
from simcse.train.loop import Stepper, fit
from simcse.train.optim import OptimConfig
from simcse.train.settings import EvalConfig, ModelConfig, TrainConfig

WORDS = {"man": "guitar", "dog": "7", "cat": "the", "woman": "2", "run": "is", "eat": "play"}
PAIRS = [Example(first, second) for first, second in WORDS.items()]
OPTIM = OptimConfig(lr=1e-3, batch_size=4, epochs=100, max_steps=3)


def weights(module):
    return torch.cat([p.detach().float().flatten() for p in module.parameters()])


def test_the_second_tower_starts_from_the_same_weights_and_only_the_first_is_left(make_encoder):
    encoder = make_encoder(ModelSettings("mean", max_length=32))
    stepper = Stepper(
        encoder,
        TrainConfig(model=ModelConfig(num_encoders=2), optim=OPTIM, precision="fp32"),
        3,
        None,
    )
    second = stepper.objective.second
    assert torch.equal(weights(second), weights(encoder))
    assert second.backbone.dropout_rng is not encoder.backbone.dropout_rng
    start = weights(encoder)
    stepper.update(1, PAIRS)
    assert not torch.equal(weights(second), start)
    assert not torch.equal(weights(encoder), start)
    assert not torch.equal(weights(second), weights(encoder))
    kept = []
    config = TrainConfig(model=ModelConfig(num_encoders=2), optim=OPTIM, precision="bf16")
    fit(encoder, PAIRS, config, keep=lambda model, best: kept.append(model))
    assert all(model is encoder for model in kept)


@pytest.mark.parametrize("name", ["fixed_mask", "dropout_free_negatives"])
def test_two_towers_refuse_what_is_made_for_one(name):
    with pytest.raises(ConfigError, match=rf"loss.{name} .* model.num_encoders is 2"):
        TrainConfig(model=ModelConfig(num_encoders=2), loss=LossConfig(**{name: True}))
    with pytest.raises(ConfigError, match="model.num_encoders must be 1 or 2"):
        ModelConfig(num_encoders=3)


def test_the_classifier_learns_and_refuses_what_it_has_no_loss_for(make_encoder):
    encoder = make_encoder(ModelSettings("mean", max_length=32))
    rows = [Example(a, a, label="same") for a in WORDS]
    rows += [Example(a, b, label="other") for a, b in WORDS.items()]
    events = []
    optim = OptimConfig(lr=5e-3, batch_size=4, epochs=100, max_steps=60)
    config = TrainConfig(loss=LossConfig(form="classifier"), optim=optim, precision="fp32")
    fit(encoder, rows, config, observe=events.append)
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert losses[0] == pytest.approx(math.log(2), abs=0.4)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    with pytest.raises(ConfigError, match="eval.dev=heldout needs the contrastive loss"):
        TrainConfig(loss=LossConfig(form="classifier"), eval=EvalConfig(dev="stsb,heldout"))
    with pytest.raises(ConfigError, match="loss.form=classifier is made for one encoder"):
        TrainConfig(loss=LossConfig(form="classifier"), model=ModelConfig(num_encoders=2))

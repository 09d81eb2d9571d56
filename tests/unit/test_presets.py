"""The presets are REFERENCE.md's recipes (Gao et al. 2021, appendix A and table A.1)."""

import pytest

from simcse.config import build, merge
from simcse.errors import ConfigError
from simcse.train.presets import PRESETS, find_preset
from simcse.train.settings import TrainConfig

RECIPES = [
    ("unsup-bert-base", "google-bert/bert-base-uncased", 3e-5, 64),
    ("sup-bert-base", "google-bert/bert-base-uncased", 5e-5, 512),
    ("unsup-bert-large", "google-bert/bert-large-uncased", 1e-5, 64),
    ("sup-bert-large", "google-bert/bert-large-uncased", 1e-5, 512),
    ("unsup-roberta-base", "FacebookAI/roberta-base", 1e-5, 512),
    ("sup-roberta-base", "FacebookAI/roberta-base", 5e-5, 512),
    ("unsup-roberta-large", "FacebookAI/roberta-large", 3e-5, 512),
    ("sup-roberta-large", "FacebookAI/roberta-large", 1e-5, 512),
]


def test_there_is_a_preset_for_every_recipe_and_no_other():
    assert set(PRESETS) == {name for name, *_ in RECIPES}


@pytest.mark.parametrize(("name", "backbone", "lr", "batch_size"), RECIPES)
def test_a_preset_is_the_published_recipe(name, backbone, lr, batch_size):
    preset = find_preset(name)
    config = build(TrainConfig, preset.settings)
    supervised = name.startswith("sup-")
    assert preset.backbone == backbone
    assert (config.optim.lr, config.optim.batch_size) == (lr, batch_size)
    assert config.optim.epochs == (3 if supervised else 1)
    assert config.optim.max_steps is None
    assert config.model.pooling == "cls"
    assert config.model.head == ("always" if supervised else "train_only")
    assert config.model.max_length == 32
    assert config.model.dropout is None  # the backbone's own, 0.1
    assert config.loss.temperature == 0.05
    assert config.loss.hard_negative_weight == 1
    assert config.loss.mlm_weight == 0
    assert not config.loss.mask_duplicates
    assert (config.eval.every, config.eval.dev) == (250, "stsb")
    # what the reference code does: linear to zero, no warm-up, no decay, clipped at 1
    assert (config.optim.schedule, config.optim.warmup) == ("linear", 0)
    assert (config.optim.weight_decay, config.optim.clip_norm) == (0, 1)


def test_settings_laid_over_a_preset_leave_the_preset_alone():
    preset = find_preset("unsup-bert-base")
    changed = build(TrainConfig, merge(preset.settings, {"optim": {"lr": "1e-4"}}))
    assert (changed.optim.lr, changed.optim.batch_size) == (1e-4, 64)
    assert build(TrainConfig, find_preset("unsup-bert-base").settings).optim.lr == 3e-5


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ConfigError, match="unknown preset 'bert'; known: unsup-bert-base, "):
        find_preset("bert")

"""The paper's recipes by name (Gao et al. 2021, appendix A)."""

from dataclasses import dataclass
from typing import Any

from simcse.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """A published recipe."""

    backbone: str  # hub id of the start model, if no other is given
    settings: dict[str, Any]  # nested values for `TrainConfig`


def find_preset(name: str) -> Preset:
    """Return the named recipe.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def _recipe(backbone: str, lr: float, batch_size: int, *, supervised: bool) -> Preset:
    return Preset(
        backbone,
        {
            "model": {
                "pooling": "cls",
                "head": "always" if supervised else "train_only",  # section 6.3
                "max_length": 32,
                "normalize": False,
            },
            "loss": {"temperature": 0.05, "hard_negative_weight": 1.0, "mask_duplicates": False},
            "optim": {"lr": lr, "batch_size": batch_size, "epochs": 3 if supervised else 1},
            "eval": {"every": 250, "dev": "stsb"},
        },
    )


_ROWS = {  # backbone, learning rate, batch size: table A.1
    "unsup-bert-base": ("google-bert/bert-base-uncased", 3e-5, 64),
    "unsup-bert-large": ("google-bert/bert-large-uncased", 1e-5, 64),
    "unsup-roberta-base": ("FacebookAI/roberta-base", 1e-5, 512),
    "unsup-roberta-large": ("FacebookAI/roberta-large", 3e-5, 512),
    "sup-bert-base": ("google-bert/bert-base-uncased", 5e-5, 512),
    "sup-bert-large": ("google-bert/bert-large-uncased", 1e-5, 512),
    "sup-roberta-base": ("FacebookAI/roberta-base", 5e-5, 512),
    "sup-roberta-large": ("FacebookAI/roberta-large", 1e-5, 512),
}
PRESETS = {name: _recipe(*row, supervised=name.startswith("sup-")) for name, row in _ROWS.items()}

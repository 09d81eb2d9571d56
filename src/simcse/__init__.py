"""SimCSE sentence embeddings: train, evaluate, encode (Gao, Yao, Chen 2021).

Importing this package is cheap; torch is loaded when a name that needs it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse.compat import SimCSE as SimCSE
    from simcse.errors import SimcseError as SimcseError
    from simcse.model.encoder import SentenceEncoder as SentenceEncoder
    from simcse.train.run import train as train
    from simcse.train.trainer import Trainer as Trainer

__version__ = "0.1.0"

_HOMES = {
    "SentenceEncoder": "simcse.model.encoder",
    "SimCSE": "simcse.compat",
    "SimcseError": "simcse.errors",
    "Trainer": "simcse.train",
    "train": "simcse.train",
}
__all__ = ["SentenceEncoder", "SimCSE", "SimcseError", "Trainer", "__version__", "train"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute of any kind
    if name not in _HOMES:
        raise AttributeError(f"module 'simcse' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

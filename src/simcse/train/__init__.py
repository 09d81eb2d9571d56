"""Training: one `Trainer`, its callbacks, and `train`, which goes from files to a run folder.

``from simcse import train`` gives this package, which can be called as the function itself.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse.train.events import Event as Event
    from simcse.train.events import TrainResult as TrainResult
    from simcse.train.run import train as train
    from simcse.train.trainer import Trainer as Trainer
    from simcse.train.training_data import TrainingData as TrainingData

_HOMES = {
    "Event": "simcse.train.events",
    "TrainResult": "simcse.train.events",
    "Trainer": "simcse.train.trainer",
    "TrainingData": "simcse.train.training_data",
    "train": "simcse.train.run",
}
__all__ = ["Event", "TrainResult", "Trainer", "TrainingData", "train"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module attribute of any type
    if name not in _HOMES:
        raise AttributeError(f"module 'simcse.train' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


class _CallablePackage(ModuleType):
    """Lets ``simcse.train(...)`` call the function, although a package has the same name."""

    def __call__(self, *args: Any, **options: Any) -> "TrainResult":  # noqa: ANN401 - passed on
        result: TrainResult = self.train(*args, **options)
        return result


sys.modules[__name__].__class__ = _CallablePackage

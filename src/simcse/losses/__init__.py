"""Losses on tensors, one class a file. This file finds them by ``loss.type``.

That is the name of a built-in loss in `LOSSES`, or a user's own class as ``package.module:Class``.
"""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import field, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from simcse.config import build, to_dict
from simcse.errors import ConfigError
from simcse.io.files import sha256_file
from simcse.losses.contrastive import ContrastiveLoss, Loss
from simcse.losses.debiased import DebiasedLoss
from simcse.losses.decoupled import DecoupledLoss
from simcse.losses.focal import FocalLoss

LOSSES: dict[str, type[ContrastiveLoss]] = {
    "contrastive": ContrastiveLoss,
    "decoupled": DecoupledLoss,
    "debiased": DebiasedLoss,
    "focal": FocalLoss,
}
SHARED = ("temperature", "similarity", "hard_negative_weight")  # settings of all of these
CLASSIFIER = "classifier"  # is no contrastive loss: see `simcse.losses.classifier`
BUILT_IN = (*LOSSES, CLASSIFIER)
CALL = "loss(anchors, positives, negatives, *, negative_owners, ignore)"


def find_loss(name: str) -> Callable[..., Loss]:
    """Return the class that ``loss.type`` names; a user's own is imported.

    Its module is searched in the working directory first, then among the installed packages.

    Raises:
        ConfigError: there is no such loss, or its module cannot be imported.
    """
    if name in LOSSES:
        return LOSSES[name]
    module_name, colon, class_name = name.partition(":")
    if not colon:
        raise ConfigError(
            f"loss.type must be one of {', '.join(BUILT_IN)}, or package.module:Class for a loss "
            f"of your own; got {name!r}{_nearest(name, BUILT_IN)}"
        )
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"loss.type={name} cannot be imported: {error!r}; expected a Python module in the "
            f"working directory {folder} or in an installed package"
        ) from error
    finally:
        sys.path.remove(folder)
    found: Any = getattr(module, class_name, None)
    if found is None:
        nearest = _nearest(class_name, vars(module))
        raise ConfigError(f"loss.type={name}: {module.__file__} has no {class_name!r}{nearest}")
    if not callable(found):
        raise ConfigError(f"loss.type={name} must be a class, found {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def resolve_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check ``loss.options`` by the arguments of a loss, and add the defaults of the others.

    Values are converted by the annotations of the arguments, or by the types of their defaults.

    Raises:
        ConfigError: an option is unknown, missing or of the wrong type.
    """
    loss, shared = find_loss(name), SHARED if name in LOSSES else ()
    if misplaced := [option for option in options if option in shared]:
        raise ConfigError(f"loss.options.{misplaced[0]} is no option; set loss.{misplaced[0]}")
    try:
        arguments = inspect.signature(loss, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"loss.type={name}: its arguments cannot be read: {error}") from error
    fields: list[Any] = []
    for each in arguments:
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name not in shared:
            required, default = each.default is each.empty, each.default
            usual = str if required or default is None else type(default)
            hint = usual if each.annotation is each.empty else each.annotation
            given = field() if required else field(default_factory=partial(copy, default))
            fields.append((each.name, hint, given))
    return to_dict(build(make_dataclass("Options", fields), options, section="loss.options."))


def build_loss(name: str, arguments: Mapping[str, Any]) -> Loss:
    """Make a loss with these keyword arguments.

    Raises:
        ConfigError: an argument is out of range, or the class raises another error.
    """
    loss_class = find_loss(name)
    try:
        loss = loss_class(**arguments)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"loss.type={name} with {dict(arguments)} raised {error!r}") from error
    if not callable(loss):
        raise ConfigError(f"loss.type={name} cannot be called as {CALL}; define its __call__")
    return loss


def check_loss(name: str, arguments: Mapping[str, Any], *, dimensions: int) -> None:
    """Call a user's own loss on random embeddings (N, D), so that mistakes show before training.

    Raises:
        ConfigError: the loss raises, or what it returns is no scalar that depends on them.
    """
    if name in BUILT_IN:
        return
    rows = torch.randn(20, dimensions, generator=torch.Generator().manual_seed(0)).requires_grad_()
    own, ignore = torch.tensor([1, 1, 3, -1]), torch.zeros(8, 12, dtype=torch.bool)
    with torch.random.fork_rng(devices=[]):
        loss = build_loss(name, arguments)
        try:
            value = loss(rows[:8], rows[8:16], rows[16:], negative_owners=own, ignore=ignore)
        except Exception as error:
            raise ConfigError(f"loss.type={name}, called as {CALL}, raised {error!r}") from error
    if not scalar(value, name).requires_grad:
        raise ConfigError(
            f"loss.type={name} must return a value that depends on the embeddings; remove "
            ".detach(), .item() and torch.no_grad() from it"
        )


def scalar(value: Tensor, name: str) -> Tensor:
    """Return what the loss ``name`` returned.

    Raises:
        ConfigError: it is no floating-point tensor without dimensions.
    """
    if isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point():
        return value
    shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
    raise ConfigError(
        f"loss.type={name} must return a floating-point tensor without dimensions, such as the "
        f"mean over rows; found {type(value).__name__}{shape}"
    )


def loss_provenance(name: str) -> dict[str, str]:
    """Return the full name of a user's own loss and the SHA-256 of its file; else nothing."""
    if name in BUILT_IN:
        return {}
    loss: Any = find_loss(name)
    source = sys.modules[loss.__module__].__file__
    sha256 = sha256_file(Path(source)) if source else ""
    return {"class": f"{loss.__module__}:{loss.__qualname__}", "sha256": sha256}


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [*known], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

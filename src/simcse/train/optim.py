"""Optimizer and schedule: AdamW on fp32 master weights, whatever precision the model runs in."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from simcse.errors import ConfigError
from simcse.train.processes import ALONE, Processes

Schedule = Literal["linear", "cosine", "constant"]
CHUNK_TOKENS = 8192


@dataclass(frozen=True)
class OptimConfig:
    """How the weights move.

    Attributes:
        lr: peak learning rate.
        batch_size: anchors a step.
        micro_batch_tokens: tokens of a batch computed at once; a larger batch is computed twice,
            with the same result in less memory (gradient caching).
        epochs: passes over the data, whole or not.
        max_steps: stop after so many steps, if that is earlier.
        weight_decay: AdamW's decoupled decay, on matrices only.
        clip_norm: gradients are scaled down to this norm; 0 leaves them.
        warmup: share of the steps over which the rate rises from 0.
        schedule: what the rate does after that.
    """

    lr: float = 5e-5
    batch_size: int = 64
    micro_batch_tokens: int = CHUNK_TOKENS
    epochs: float = 1.0
    max_steps: int | None = None
    weight_decay: float = 0.0  # as the reference code
    clip_norm: float = 1.0
    warmup: float = 0.0
    schedule: Schedule = "linear"

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optim.lr must be > 0, got {self.lr}")
        if self.batch_size < 2:
            raise ConfigError(f"optim.batch_size must be at least 2, got {self.batch_size}")
        if self.micro_batch_tokens < 1:
            raise ConfigError(
                f"optim.micro_batch_tokens must be at least 1, got {self.micro_batch_tokens}"
            )
        if not self.epochs > 0:
            raise ConfigError(f"optim.epochs must be > 0, got {self.epochs}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ConfigError(f"optim.max_steps must be at least 1, got {self.max_steps}")
        if not (self.weight_decay >= 0 and self.clip_norm >= 0):
            raise ConfigError("optim.weight_decay and optim.clip_norm must be >= 0")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup must be from 0 to below 1, got {self.warmup}")


def learning_rate(config: OptimConfig, step: int, steps: int) -> float:
    """Rate of step ``step`` (from 0) out of ``steps``: linear warm-up, then the schedule."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if config.schedule == "constant":
        return config.lr
    if config.schedule == "cosine":
        return config.lr * (1 + math.cos(math.pi * done)) / 2
    return config.lr * (1 - done)


class Optimizer:
    """AdamW, on fp32 master weights where the model's own are held in a smaller format.

    Frozen parameters have masters too, so that they come back as they were; gradients from
    before are forgotten.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        config: OptimConfig,
        *,
        masters: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.processes = config, processes
        self.weights = list(parameters)
        for weight in self.weights:
            weight.grad = None
        self.masters = [_copy(p) if masters else p for p in self.weights]
        matrices = [m for m in self.masters if m.requires_grad and m.dim() > 1]
        vectors = [m for m in self.masters if m.requires_grad and m.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=config.lr, fused=True)

    def collect(self) -> None:
        """Add the gradients to those of the fp32 masters: pieces of a batch add up in fp32."""
        for weight, master in self._pairs():
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad.add_(weight.grad)
            weight.grad = None

    def gradient_norm(self) -> float:
        """Collect the gradients of all processes, clip, and return their norm before that."""
        self.collect()
        self.processes.sum_gradients(self.masters)
        limit = self.config.clip_norm or math.inf
        return float(nn.utils.clip_grad_norm_(self.masters, limit))

    def step(self, lr: float) -> None:
        """Apply the gradients at rate ``lr`` and clear them."""
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.copy_masters()

    @torch.no_grad()
    def follow(
        self,
        slow: Iterable[nn.Parameter],
        fast: Iterable[nn.Parameter],
        *,
        momentum: float,
    ) -> None:
        """Move weights toward others: slow becomes momentum * slow + (1 - momentum) * fast.

        In fp32: rounded to bf16, a small difference would be lost.
        """
        masters = dict(zip(self.weights, self.masters, strict=True))
        for behind, ahead in zip(slow, fast, strict=True):
            masters[behind].lerp_(masters[ahead], 1 - momentum)
        self.copy_masters()

    def forget(self) -> None:
        """Drop the gradients; no weight moves."""
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the fp32 weights and AdamW's moments, named ``kind.place``; not copied."""
        tensors: dict[str, Tensor] = {}
        for place, master in enumerate(self.masters):
            held = {"weight": master.detach(), **self.adam.state.get(master, {})}
            tensors |= {f"{kind}.{place}": tensor for kind, tensor in held.items()}
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; moments that are not in it start anew."""
        self.adam.state.clear()
        for name, tensor in tensors.items():
            kind, _, place = name.partition(".")
            master = self.masters[int(place)]
            if kind == "weight":
                master.copy_(tensor)
            else:
                self.adam.state[master][kind] = tensor.to(master.device, copy=True)
        self.copy_masters()

    @torch.no_grad()
    def copy_masters(self) -> None:
        """Set the model's weights to the masters, rounded to the model's format."""
        for weight, master in self._pairs():
            weight.copy_(master)

    @contextlib.contextmanager
    def masters_in_place(self) -> Iterator[None]:
        """Let the model hold the masters themselves, to be saved; not to be run."""
        held = [weight.data for weight, _ in self._pairs()]
        for weight, master in self._pairs():
            weight.data = master.data
        try:
            yield
        finally:
            for (weight, _), data in zip(self._pairs(), held, strict=True):
                weight.data = data

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.weights, self.masters, strict=True)
        return [(weight, master) for weight, master in pairs if weight is not master]


def _copy(weight: Tensor) -> Tensor:
    return weight.detach().float().clone().requires_grad_(weight.requires_grad)

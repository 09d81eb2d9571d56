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
    """Settings of the optimizer and the schedule.

    Attributes:
        lr: peak learning rate.
        batch_size: number of anchors in a step.
        micro_batch_tokens: tokens of a batch computed at once; a larger batch is computed twice,
            with the same result in less memory (gradient caching).
        epochs: number of passes over the data; may be a fraction.
        max_steps: upper limit of the number of steps.
        weight_decay: AdamW's decoupled weight decay, on matrices only.
        clip_norm: upper limit of the gradient norm; 0 disables clipping.
        warmup: fraction of the steps in which the learning rate rises from 0.
        schedule: course of the learning rate after the warm-up.
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
    """Return the rate of step ``step``, from 0: linear warm-up, then the schedule."""
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

    Frozen parameters have masters too, so that they are restored exactly; earlier gradients are
    dropped.
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
        """Add the gradients to those of the fp32 masters: micro-batches add up in fp32."""
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

    def drop_gradients(self) -> None:
        """Drop the gradients without changing a weight."""
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Return the fp32 weights and AdamW's moments, named ``weight.INDEX``; not copied."""
        tensors: dict[str, Tensor] = {}
        for index, master in enumerate(self.masters):
            held = {"weight": master.detach(), **self.adam.state.get(master, {})}
            tensors |= {f"{name}.{index}": tensor for name, tensor in held.items()}
        return tensors

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned; moments that are missing start from zero."""
        self.adam.state.clear()
        for key, tensor in tensors.items():
            name, _, index = key.partition(".")
            master = self.masters[int(index)]
            if name == "weight":
                master.copy_(tensor)
            else:
                self.adam.state[master][name] = tensor.to(master.device, copy=True)
        self.copy_masters()

    @torch.no_grad()
    def copy_masters(self) -> None:
        """Set the model's weights to the masters, rounded to the model's number format."""
        for weight, master in self._pairs():
            weight.copy_(master)

    @contextlib.contextmanager
    def masters_in_place(self) -> Iterator[None]:
        """Let the model hold the masters themselves, so that it can be saved, but not run."""
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

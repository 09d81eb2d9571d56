"""Batch order and random draws: pure functions of seed, epoch and step."""

import hashlib
from collections.abc import Iterator, Sequence

import torch

from simcse.errors import DataError
from simcse.train.optim import OptimConfig


def count_steps(rows: int, config: OptimConfig, *, keep_single: bool = False) -> int:
    """Return the number of steps of a run over ``rows`` examples.

    Raises:
        DataError: there are too few rows for one step.
    """
    per_epoch, remainder = divmod(rows, config.batch_size)
    per_epoch += remainder > 1 or (remainder == 1 and keep_single)
    if per_epoch == 0:
        raise DataError(f"training needs at least 2 rows, got {rows}")
    steps = max(1, round(per_epoch * config.epochs))
    return min(steps, config.max_steps or steps)


def epoch_batches(
    rows: int, batch_size: int, *, seed: int, epoch: int, keep_single: bool = False
) -> list[list[int]]:
    """Shuffle row numbers and split them into batches; the last may be smaller.

    A last batch of one row is dropped unless ``keep_single``: without hard negatives its loss
    is zero.
    """
    # torch keeps 32 bits: the upper 20 of the seed are folded in, or they would be lost.
    folded = (seed << 20) ^ ((seed >> 12) * 0x9E3779B1)
    generator = torch.Generator().manual_seed(folded + epoch)
    shuffled: list[int] = torch.randperm(rows, generator=generator).tolist()
    batches = [shuffled[i : i + batch_size] for i in range(0, rows, batch_size)]
    return batches[:-1] if len(batches[-1]) == 1 and not keep_single else batches


def batch_order(
    rows: int, batch_size: int, *, seed: int, steps: int, keep_single: bool = False
) -> Iterator[Sequence[int]]:
    """Yield the row numbers of ``steps`` batches, epoch after epoch."""
    done = epoch = 0
    while done < steps:
        batches = epoch_batches(rows, batch_size, seed=seed, epoch=epoch, keep_single=keep_single)
        yield from batches[: steps - done]
        done += len(batches)
        epoch += 1


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of a step's random draws, so that no generator state outlives a step."""
    digest = hashlib.blake2b(f"{seed} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")

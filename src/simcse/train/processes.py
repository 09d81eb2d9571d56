"""Several processes that train one model: the batch is shared out, the loss and step are not.

Every process encodes its share of a batch, receives the embeddings of all others and computes
the loss of the whole batch. Of that loss it differentiates its own embeddings only, so that the
*sum* of the processes' gradients is exactly the gradient of one process with the whole batch.
(Averaging it, or a loss of the own anchors only, as the reference code has, divides it.)
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from simcse.errors import ResourceError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One of the processes that train together; by default it is alone.

    Attributes:
        rank: its number.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process looks, writes and speaks for all."""
        return self.rank == 0

    def share(self, rows: Sequence[T], rank: int | None = None) -> Sequence[T]:
        """Return the part of a batch that a process encodes; without ``rank`` this one."""
        rank = self.rank if rank is None else rank
        return rows[len(rows) * rank // self.world : len(rows) * (rank + 1) // self.world]

    def before(self, rows: Sequence[T]) -> Sequence[T]:
        """Return the part of a batch that the processes before this one encode."""
        return rows[: len(rows) * self.rank // self.world]

    def gather(self, own: Tensor, sizes: Sequence[int]) -> Tensor:
        """Join the rows of all processes in order: own (n, D) -> (N, D), differentiable in ``own``.

        Args:
            own: this process's rows.
            sizes: rows of each process.
        """
        if self.world == 1:
            return own
        padded = own.new_zeros(max(sizes), own.shape[1])  # gloo exchanges equal shapes only
        padded[: len(own)] = own.detach()
        received = [torch.empty_like(padded) for _ in sizes]
        with _naming_the_loss():
            dist.all_gather(received, padded)
        parts = [rows[:size] for rows, size in zip(received, sizes, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Put the sum over all processes in place of each gradient; ``None`` where none has one."""
        if self.world == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
        present = gradients[0].new_tensor([p.grad is not None for p in trained])
        joint = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
        with _naming_the_loss():
            dist.all_reduce(joint)
        holders, sums = torch.split(joint, [len(trained), len(joint) - len(trained)])
        totals = torch.split(sums, [p.numel() for p in trained])
        for parameter, total, held in zip(trained, totals, holders.tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if held else None

    def sum_values(self, own: Tensor) -> Tensor:
        """Return the sum of all processes' values; it has no gradient."""
        total = own.detach().clone()
        if self.world > 1:
            with _naming_the_loss():
                dist.all_reduce(total)
        return total

    def total(self, number: int) -> int:
        """Sum a number over all processes."""
        return self._reduce(number, dist.ReduceOp.SUM)

    def largest(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        return self._reduce(number, dist.ReduceOp.MAX)

    def from_first(self, make: Callable[[], T]) -> T:
        """Let the first process make a value and give it to all."""
        if self.world == 1:
            return make()
        box: list[Any] = [make() if self.is_first else None]
        with _naming_the_loss():
            dist.broadcast_object_list(box)
        value: T = box[0]
        return value

    def _reduce(self, number: int, operation: Any) -> int:  # noqa: ANN401 - torch gives no type
        if self.world == 1:
            return number
        box = torch.tensor(number)
        with _naming_the_loss():
            dist.all_reduce(box, operation)
        return int(box)


ALONE = Processes()
_MEETINGS = itertools.count()  # the same in every process


@contextlib.contextmanager
def join_processes(timeout: float) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, if it did, until the block ends.

    They may part and meet again: each meeting has names of its own in the store that they share,
    or the second would find the addresses of the first.

    Args:
        timeout: seconds after which a process that does not answer counts as lost.

    Raises:
        ResourceError: the others cannot be reached.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend, limit = "cpu:gloo,cuda:nccl" if cuda else "gloo", timedelta(seconds=timeout)
    with _naming_the_loss():
        store, rank, _ = next(rendezvous("env://", timeout=limit))
        own = dist.PrefixStore(f"meeting {next(_MEETINGS)}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=limit)
    try:
        yield Processes(rank, world)
    finally:
        dist.destroy_process_group()


def is_first_process() -> bool:
    """Say whether this is the process that writes and speaks, also before they have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _naming_the_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch has no narrower one for a peer that is gone
        reason = str(error).splitlines()[0]
        raise ResourceError(f"another training process is lost: {reason}") from error

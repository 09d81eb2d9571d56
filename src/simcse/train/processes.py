"""Several processes that train one model: each encodes a share of the batch.

Every process encodes its share, receives the embeddings of the others and computes the loss of
the whole batch. It differentiates its own embeddings only, so that the *sum* of the processes'
gradients is exactly the gradient of one process with the whole batch. (An average, or a loss of
the own anchors only, as in the reference code, divides it by the number of processes.)
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
    """One of the processes that train together; by default the only one."""

    rank: int = 0  # number of this process
    world: int = 1  # number of processes

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, writes and reports for all."""
        return self.rank == 0

    def share(self, rows: Sequence[T], rank: int | None = None) -> Sequence[T]:
        """Return the rows of a batch that a process encodes, by default this one."""
        rank = self.rank if rank is None else rank
        return rows[len(rows) * rank // self.world : len(rows) * (rank + 1) // self.world]

    def before(self, rows: Sequence[T]) -> Sequence[T]:
        """Return the rows of a batch that the processes before this one encode."""
        return rows[: len(rows) * self.rank // self.world]

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Join the rows of all processes in order: own (n, D) -> (N, D), differentiable in ``own``.

        Args:
            own: rows of this process.
            counts: number of rows of each process.
        """
        if self.world == 1:
            return own
        padded = own.new_zeros(max(counts), own.shape[1])  # gloo exchanges equal shapes only
        padded[: len(own)] = own.detach()
        received = [torch.empty_like(padded) for _ in counts]
        with _lost_process_errors():
            dist.all_gather(received, padded)
        shares = [rows[:count] for rows, count in zip(received, counts, strict=True)]
        shares[self.rank] = own
        return torch.cat(shares)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace each gradient by its sum over all processes; ``None`` if no process has one."""
        if self.world == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in trained]
        present = gradients[0].new_tensor([p.grad is not None for p in trained])
        joint = torch.cat([present, *(gradient.flatten() for gradient in gradients)])
        with _lost_process_errors():
            dist.all_reduce(joint)
        holders, sums = torch.split(joint, [len(trained), len(joint) - len(trained)])
        totals = torch.split(sums, [p.numel() for p in trained])
        for parameter, total, held in zip(trained, totals, holders.tolist(), strict=True):
            parameter.grad = total.view_as(parameter) if held else None

    def sum_values(self, own: Tensor) -> Tensor:
        """Return the sum of all processes' values; it has no gradient."""
        total = own.detach().clone()
        if self.world > 1:
            with _lost_process_errors():
                dist.all_reduce(total)
        return total

    def total(self, number: int) -> int:
        """Sum a number over all processes."""
        return self._reduce(number, dist.ReduceOp.SUM)

    def largest(self, number: int) -> int:
        """Return the largest of all processes' numbers."""
        return self._reduce(number, dist.ReduceOp.MAX)

    def from_first(self, make: Callable[[], T]) -> T:
        """Compute a value in the first process and send it to all."""
        if self.world == 1:
            return make()
        values: list[Any] = [make() if self.is_first else None]
        with _lost_process_errors():
            dist.broadcast_object_list(values)
        value: T = values[0]
        return value

    def _reduce(self, number: int, operation: Any) -> int:  # noqa: ANN401 - torch gives no type
        if self.world == 1:
            return number
        reduced = torch.tensor(number)
        with _lost_process_errors():
            dist.all_reduce(reduced, operation)
        return int(reduced)


ALONE = Processes()
_GROUPS = itertools.count()  # the same in every process


@contextlib.contextmanager
def join_processes(timeout: float) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, if it did, until the block ends.

    Within another such block nothing is joined again. After the block the processes can form
    another group: each group uses a prefix of its own in the store that they share, because it
    would otherwise find the addresses of the group before.

    Args:
        timeout: seconds after which a process that does not answer counts as lost.

    Raises:
        ResourceError: the other processes cannot be reached.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    if dist.is_initialized():
        yield Processes(dist.get_rank(), world)
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    backend, limit = "cpu:gloo,cuda:nccl" if cuda else "gloo", timedelta(seconds=timeout)
    with _lost_process_errors():
        store, rank, _ = next(rendezvous("env://", timeout=limit))
        own = dist.PrefixStore(f"group {next(_GROUPS)}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=limit)
    try:
        yield Processes(rank, world)
    finally:
        dist.destroy_process_group()


def is_first_process() -> bool:
    """Return whether this process writes and reports, also before the processes have joined."""
    return os.environ.get("RANK", "0") == "0"


@contextlib.contextmanager
def _lost_process_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch raises no narrower one for a lost peer
        reason = str(error).splitlines()[0]
        raise ResourceError(f"another training process is lost: {reason}") from error

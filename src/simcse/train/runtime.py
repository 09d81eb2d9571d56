"""How a run is carried out: threads and determinism of torch, and signals that stop it."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import torch

from simcse.train.settings import RunConfig


@contextlib.contextmanager
def torch_runtime(config: RunConfig) -> Iterator[None]:
    """Set torch's threads and determinism for the block, and restore them afterward."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads or threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it on CUDA
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Give a function that returns the number of the signal received, 0 before there is one.

    SIGTERM and SIGINT are recorded, so that a run can stop between two steps; a second signal
    interrupts at once. Outside the main thread signals stay as they are.
    """
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

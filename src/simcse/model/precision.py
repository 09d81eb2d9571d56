"""The choice of number format: fp32, or bf16 where a trial finds it faster."""

import contextlib
import functools
import json
import time
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from simcse.errors import ArtifactError, ResourceError
from simcse.io.benchmarks import cache_folder
from simcse.io.checkpoints import read_json
from simcse.io.files import write_text
from simcse.io.machine import processor
from simcse.model.kernels import processor_supports

Precision = Literal["auto", "fp32", "bf16"]
Chosen = Literal["fp32", "bf16"]
EncodingPrecision = Literal["auto", "fp32", "bf16", "int8"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

CHOICES = "precision.json"
ROWS, TRIES = 512, 5  # of the trial: a batch of short sentences
MIN_GAIN = 1.2  # in products; the operations around them gain less from bf16


def choose_precision(precision: Precision, device: torch.device, *, width: int) -> Chosen:
    """Resolve "auto" for hidden states of ``width``.

    On CUDA by asking the device. On a CPU that multiplies bf16 by a short trial, once for each
    processor, torch, number of threads and width: the times are stored in `CHOICES` in the
    user's cache. On any other CPU bf16 is many times slower, and fp32 is chosen without a trial.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type != "cpu" or not processor_supports("avx512_bf16"):
        return "fp32"
    return _tried(processor(), torch.get_num_threads(), width)


@functools.cache
def _tried(processor: str, threads: int, width: int) -> Chosen:
    path = cache_folder().parent / CHOICES
    trial = f"{processor}, {threads} threads, torch {torch.__version__}, width {width}"
    known = _read(path)
    seconds = known.get(trial)
    if seconds is None:
        seconds = {name: _try(dtype, width) for name, dtype in DTYPES.items()}
        with contextlib.suppress(ResourceError):  # a cache that cannot be written is none
            write_text(path, json.dumps({**known, trial: seconds}, indent=2) + "\n")
    return "bf16" if seconds["fp32"] > MIN_GAIN * seconds["bf16"] else "fp32"


def _read(path: Path) -> dict[str, dict[str, float]]:
    """Read earlier trials; a damaged file counts as none."""
    try:
        found = read_json(path)
        return {
            trial: {name: float(times[name]) for name in DTYPES} for trial, times in found.items()
        }
    except (ArtifactError, ResourceError, KeyError, TypeError, ValueError):
        return {}


def _try(dtype: torch.dtype, width: int) -> float:
    """Return the seconds of a feed-forward layer, the best of a few."""
    rows, weight = torch.ones(ROWS, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    seconds = []
    with torch.inference_mode():
        for _ in range(TRIES + 1):  # the first one compiles
            started = time.perf_counter()
            nn.functional.linear(rows, weight)
            seconds.append(time.perf_counter() - started)
    return min(seconds[1:])

"""The process of one system of a race: reads a task, warms up, and works on request.

One JSON value per line, in and out; what the work prints goes to stderr.
"""

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from simcse.errors import SimcseError


def main() -> None:
    """Serve one system until stdin ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    task = json.loads(sys.stdin.readline())
    module, function = task["factory"].split(":")
    try:
        factory = getattr(importlib.import_module(module), function)
        work: Callable[[], Any] = factory(**task["arguments"])
    except (ImportError, SimcseError) as error:
        _answer(answers, {"missing": str(error)})
        return
    results = [work() for _ in range(task["warm_up"])]
    _answer(answers, {"result": results[0] if results else None})
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        answer = {"seconds": time.perf_counter() - started, "peak_mib": _peak_mib()}
        if hasattr(work, "score"):  # not part of the work
            answer["score"] = work.score()
        _answer(answers, answer)


def _peak_mib() -> float | None:
    """Return the highest memory of this process, where the operating system reports it.

    Not `resource.getrusage`: a new process starts with its parent's peak there.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def _answer(stream: TextIO, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()


if __name__ == "__main__":
    main()

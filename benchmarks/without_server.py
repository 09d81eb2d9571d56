"""The library in a process of its own, timed without a server: what `load.py` compares with."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SENTENCE = "The orchestra rehearsed the second movement twice before the hall was opened at noon."


def spread(times: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles."""
    if not times:
        return None
    ordered = sorted(times)
    at = {"p10": 0.10, "p50": 0.50, "p99": 0.99}
    return {name: ordered[min(len(ordered) - 1, int(q * len(ordered)))] for name, q in at.items()}


class Library:
    """The library in a process of its own, timed without a server."""

    def __init__(self, model: str, index: Path) -> None:
        command = [sys.executable, __file__, model, str(index)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> "Library":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def time(self, what: str) -> dict[str, float]:
        """Return percentiles in ms of one sentence's embedding, or of that and a search."""
        self.process.stdin.write(what.encode() + b"\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        return json.loads(self.process.stdout.readline())  # type: ignore[union-attr,no-any-return]


def main(model: str, index: str) -> None:
    """Answer `Library`."""
    import faiss

    from simcse.index.uri import open_index
    from simcse.model.encoder import SentenceEncoder

    encoder = SentenceEncoder.load(model)
    flat = faiss.IndexFlatIP(encoder.dimensions)
    opened = open_index(Path(index))
    flat.add(opened.sample(len(opened))[1])
    work: dict[str, Callable[[], object]] = {
        "encode": lambda: encoder.encode([SENTENCE]),
        "search": lambda: flat.search(encoder.encode([SENTENCE]), 10),
    }
    for line in sys.stdin:
        for _ in range(20):
            work[line.strip()]()
        times = []
        for _ in range(200):
            started = time.perf_counter()
            work[line.strip()]()
            times.append(1e3 * (time.perf_counter() - started))
        print(json.dumps(spread(times)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

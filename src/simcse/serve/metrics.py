"""Counters and histograms in Prometheus' text format."""

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOKENS = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0)
HELP = {
    "requests_total": "Requests by route and status code.",
    "rejected_total": "Requests refused, by reason.",
    "truncated_total": "Inputs cut to the length limit, which the caller allowed.",
    "inputs_total": "Inputs embedded.",
    "queue_tokens": "Tokens that wait or are being computed.",
    "model_info": "The model served.",
    "index_rows": "Rows of the index.",
    "batch_tokens": "Tokens computed at once.",
    "request_seconds": "Time from a request's headers to the end of its response.",
    "tokenize_seconds": "Time a request's tokenization took.",
    "queue_seconds": "Time a request's first row waited.",
    "inference_seconds": "Time a batch took.",
}
BUCKETS = {name: TOKENS if name == "batch_tokens" else SECONDS for name in HELP}
Labels = tuple[tuple[str, str], ...]


class Metrics:
    """What happened since the start; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, Labels], float] = defaultdict(float)
        self._gauges: dict[tuple[str, Labels], float] = {}
        self._spread: dict[str, list[float]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        with self._lock:
            self._counts[name, tuple(sorted(labels.items()))] += amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name, tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        limits = BUCKETS[name]
        with self._lock:
            counts = self._spread.setdefault(name, [0.0] * (len(limits) + 2))
            counts[bisect_left(limits, value)] += 1
            counts[-1] += value

    def text(self) -> str:
        """Return everything as Prometheus reads it."""
        with self._lock:
            blocks = [
                *_simple(self._counts, "counter"),
                *_simple(self._gauges, "gauge"),
                *(_histogram(name, counts) for name, counts in sorted(self._spread.items())),
            ]
        return "\n".join(blocks) + "\n"


def _simple(values: Mapping[tuple[str, Labels], float], kind: str) -> list[str]:
    lines = []
    for name in sorted({name for name, _ in values}):
        lines.append(_head(name, kind))
        for (found, labels), value in sorted(values.items()):
            if found == name:
                shown = ",".join(f'{label}="{_escape(text)}"' for label, text in labels)
                lines.append(f"simcse_{name}{{{shown}}} {value:g}")
    return lines


def _histogram(name: str, counts: list[float]) -> str:
    limits = [f"{limit:g}" for limit in BUCKETS[name]]
    up_to = list(accumulate(counts[:-1]))
    buckets = [
        f'simcse_{name}_bucket{{le="{limit}"}} {count:g}'
        for limit, count in zip([*limits, "+Inf"], up_to, strict=True)
    ]
    return "\n".join(
        [
            _head(name, "histogram"),
            *buckets,
            f"simcse_{name}_sum {counts[-1]!r}",
            f"simcse_{name}_count {up_to[-1]:g}",
        ]
    )


def _head(name: str, kind: str) -> str:
    return f"# HELP simcse_{name} {HELP[name]}\n# TYPE simcse_{name} {kind}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""The server's metrics, in a registry of their own so that several apps can share a process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class ServerMetrics:
    """Counters, gauges and histograms of one application; every name begins with ``simcse_``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests.", "route", "code")
        self.rejected = self._counter("rejected", "Rejected requests.", "reason")
        self.truncated = self._counter("truncated", "Inputs truncated to the length limit.")
        self.inputs = self._counter("inputs", "Inputs embedded.")
        self.queue_tokens = self._gauge("queue_tokens", "Tokens waiting or being computed.")
        self.index_rows = self._gauge("index_rows", "Rows of the index.")
        self.model_info = self._gauge("model_info", "The model served.", "model", "fingerprint")
        self.batch_tokens = self._histogram("batch_tokens", "Tokens of a batch.", TOKENS)
        self.request_seconds = self._histogram("request_seconds", "From headers to response end.")
        self.tokenize_seconds = self._histogram("tokenize_seconds", "Tokenization of a request.")
        self.queue_seconds = self._histogram("queue_seconds", "Wait of a request's first input.")
        self.inference_seconds = self._histogram("inference_seconds", "Computation of a batch.")

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"simcse_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"simcse_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
        return Histogram(f"simcse_{name}", text, buckets=buckets, registry=self.registry)

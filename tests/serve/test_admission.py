"""Admission on its own, without a server: the order of the checks, and the back-off after 429."""

import asyncio
import json
import types
from concurrent.futures import ThreadPoolExecutor

from simcse.serve import admission
from simcse.serve.admission import AdmissionMiddleware, RetryBackoff
from simcse.serve.batching import Overloaded
from simcse.serve.metrics import ServerMetrics
from simcse.serve.settings import ServeConfig

from .conftest import EMBED, KEY, WAIT


class FullBatcher:
    """Rejects every request, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def check_room(self, tokens, in_flight, waited):
        self.asked.append((tokens, in_flight, waited))
        raise Overloaded(3.2)


def middleware(**settings):
    async def app(_scope, _receive, _send):
        raise AssertionError("the application was called")

    service = types.SimpleNamespace(
        settings=ServeConfig(**settings),
        metrics=ServerMetrics(),
        draining=False,
        batcher=FullBatcher(),
    )
    return AdmissionMiddleware(app, service=service)


def run_coroutine(coroutine):
    """Run in a thread: the browser of the page's tests keeps a loop in the main one."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result(WAIT)


def ask(gate, *, method="POST", body=b"{}", **headers):
    """Return status, headers and error of a request, and how many times its body was read."""
    sent, read = [], []

    async def receive():
        read.append(bool(sent))
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    fixed = {"host": "localhost", "content-type": "application/json"}
    fixed["content-length"] = str(len(body))
    given = {**fixed, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": EMBED,
        "client": ["10.0.0.1", 5000],
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    run_coroutine(gate(scope, receive, send))
    assert not read or read[0], "the body was read before the answer"
    start, content = sent[0], b"".join(message.get("body", b"") for message in sent[1:])
    return start["status"], dict(start["headers"]), json.loads(content)["error"]


def test_checks_come_in_order_and_none_reads_the_body():
    gate = middleware(keys=(KEY,), body_bytes=10)
    authorized = f"Bearer {KEY}"
    for expected, request in (
        (431, {"x_long": "a" * 40_000}),
        (401, {"body": b"a" * 11, "content_type": "text/plain"}),
        (413, {"body": b"a" * 11, "content_type": "text/plain", "authorization": authorized}),
        (413, {"content_length": "-1", "authorization": authorized}),
        (415, {"content_type": "text/plain", "authorization": authorized}),
        (415, {"content_encoding": "gzip", "authorization": authorized}),
        (429, {"authorization": authorized}),
    ):
        status, headers, error = ask(gate, **request)
        assert (status, set(error)) == (expected, {"message", "type", "param", "code"})
        assert len(headers[b"x-request-id"]) == 16
    assert gate.service.batcher.asked == [(1, 0, 0.0)]
    assert headers[b"retry-after"] == b"3"
    text = gate.service.metrics.text().decode()
    assert 'simcse_rejected_total{reason="key"} 1.0' in text
    assert 'simcse_requests_total{code="429",route="other"} 1.0' in text


def test_another_host_name_is_rejected_only_where_there_is_no_key():
    assert ask(middleware(), host="evil.example:80")[0] == 403
    assert ask(middleware(keys=(KEY,)), host="evil.example:80")[0] == 401


def test_s13_a_client_that_ignores_retry_after_waits_longer_each_time(monkeypatch):
    """The wait stays below `max_wait`, and the request is admitted as having waited so long."""
    now, slept = [100.0], []

    async def sleep(seconds):
        slept.append(round(seconds, 6))
        now[0] += seconds

    monkeypatch.setattr(admission.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(admission.asyncio, "sleep", sleep)
    gate = middleware(max_wait=0.5)
    for _ in range(6):
        assert ask(gate)[0] == 429
    assert slept == [0.05, 0.1, 0.2, 0.4, 0.4]
    waited = [round(waited, 6) for _, _, waited in gate.service.batcher.asked]
    assert waited == [0.0, *slept]
    now[0] += 2.0  # it heeds Retry-After
    ask(gate)
    ask(gate)
    assert slept[5:] == [0.05]


def test_connections_are_forgotten_when_they_are_too_many(monkeypatch):
    monkeypatch.setattr(admission, "BACKOFF_CLIENTS", 3)
    backoff = RetryBackoff(0.5)
    for client in range(5):
        backoff.rejected((client,))
    assert list(backoff._clients) == [(2,), (3,), (4,)]


def test_s16_slow_bodies_take_no_room(monkeypatch):
    """Else a few clients that send nothing would have all others rejected."""
    monkeypatch.setattr(admission, "ARRIVAL_SECONDS", 0.01)
    gate = middleware()
    seen = []

    async def run():
        async def app(_scope, receive, _send):
            await receive()

        async def receive():
            seen.append(gate.in_flight)
            while gate.in_flight:
                await asyncio.sleep(0.01)
            return {"type": "http.disconnect"}

        async def send(_message):
            pass

        gate.app = app
        gate.service.batcher.check_room = lambda *_: None
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": EMBED, "headers": headers}
        await asyncio.wait_for(gate(scope, receive, send), WAIT)

    run_coroutine(run())
    assert seen == [1]
    assert gate.in_flight == 0

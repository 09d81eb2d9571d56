"""One connection, byte by byte, on a clock of the test's own."""

import json

import pytest
import uvicorn
from uvicorn.server import ServerState

from simcse.serve import connection as module
from simcse.serve.connection import Connection
from simcse.serve.gate import MAX_HEADER_BYTES

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
REFUSAL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


class Clock:
    """An event loop as far as a connection needs one: time passes when the test says so."""

    def __init__(self):
        self.now, self.waiting, self.soon, self.tasks = 100.0, [], [], []

    def time(self):
        return self.now

    def call_later(self, seconds, callback):
        handle = Handle(self.now + seconds, callback)
        self.waiting.append(handle)
        return handle

    def call_soon(self, callback, *arguments):
        self.soon.append((callback, arguments))

    def create_task(self, coroutine, **_):
        coroutine.close()
        self.tasks.append(coroutine)
        return self

    def add_done_callback(self, _callback):
        pass

    def wait(self, seconds):
        until = self.now + seconds
        for callback, arguments in self.soon:  # and what they add
            callback(*arguments)
        self.soon.clear()
        while due := [h for h in self.waiting if not h.cancelled and h.at <= until]:
            first = min(due, key=lambda handle: handle.at)
            self.waiting.remove(first)
            self.now = first.at
            first.callback()
        self.now = until


class Handle:
    def __init__(self, at, callback):
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self):
        self.cancelled = True


class Transport:
    def __init__(self):
        self.sent, self.closed, self.reading = b"", False, True

    def write(self, data):
        self.sent += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True

    def get_extra_info(self, _name):
        return None


class FakeGate:
    """Refuses every POST while `full`."""

    def __init__(self):
        self.full, self.inside, self.asked = True, 0, []

    def refusal_unread(self, method, body_bytes, waited):
        self.asked.append((method, body_bytes, waited))
        return REFUSAL if self.full and method == "POST" else None


@pytest.fixture
def opened():
    async def app(scope, receive, send):
        raise AssertionError

    gate, clock, transport = FakeGate(), Clock(), Transport()
    config = uvicorn.Config(app, lifespan="off", log_config=None)
    connection = Connection(
        gate, 10.0, config=config, server_state=ServerState(), app_state={}, _loop=clock
    )
    connection.connection_made(transport)
    return connection, gate, clock, transport


def test_s13_a_request_is_refused_by_its_headers_and_its_body_passed_over(opened):
    connection, gate, clock, transport = opened
    connection.data_received(HEAD + b"{")
    assert (transport.sent, gate.asked, gate.inside) == (REFUSAL, [("POST", 9, 0)], 0)
    clock.wait(1)
    connection.data_received(b"12345678")
    gate.full = False
    connection.data_received(HEAD + b"123456789")
    assert len(clock.tasks) == 1  # the next request is handed on
    assert gate.inside == 1
    connection.connection_lost(None)
    assert gate.inside == 0


def test_a_refused_client_that_does_not_wait_is_heard_later_each_time(opened):
    """What it sent meanwhile has waited that long, and is admitted as such."""
    connection, gate, clock, transport = opened
    least, most = module.DEAF_SECONDS
    waited = 0.0
    for expected in (least, 2 * least, 4 * least, 8 * least, most, most):
        connection.data_received(HEAD + b"123456789")
        assert gate.asked[-1] == ("POST", 9, waited)
        assert not transport.reading
        clock.wait(expected - 0.001)
        assert not transport.reading
        clock.wait(0.001)
        assert transport.reading
        waited = expected
    clock.wait(0.001)  # nothing was waiting
    connection.data_received(HEAD + b"123456789")
    assert gate.asked[-1] == ("POST", 9, 0)
    clock.wait(least)
    assert transport.reading
    assert not transport.closed


def test_s16_a_refused_client_that_sends_nothing_more_is_closed(opened):
    connection, _, clock, transport = opened
    connection.data_received(HEAD + b"1234")
    clock.wait(9)
    assert not transport.closed
    clock.wait(2)
    assert transport.closed


def test_an_idle_connection_is_closed_after_a_refusal_too(opened):
    connection, _, clock, transport = opened
    connection.data_received(HEAD + b"123456789")
    clock.wait(connection.timeout_keep_alive + 1)
    assert transport.closed


def test_s10_headers_without_end_are_cut_off_with_an_error_body(opened):
    connection, _, _, transport = opened
    connection.data_received(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    for _ in range(MAX_HEADER_BYTES // 4096):
        assert not transport.closed
        connection.data_received(b"a" * 4096)
    assert transport.closed
    head, _, body = transport.sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert "headers" in json.loads(body)["error"]["message"]


def test_what_is_no_http_gets_an_error_body(opened):
    connection, _, _, transport = opened
    connection.data_received(b"\x16\x03\x01 hello\r\n\r\n")
    assert transport.closed
    assert json.loads(transport.sent.partition(b"\r\n\r\n")[2])["error"]["param"] is None

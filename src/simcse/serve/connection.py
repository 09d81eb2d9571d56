"""One connection of the server: slow, endless and hasty clients do not hold up the others."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simcse.serve.errors import ApiError
from simcse.serve.gate import MAX_HEADER_BYTES, Gate

DEAF_SECONDS = (0.05, 0.5)  # a refused client is not listened to: at first, if it does not wait


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with the limits that it leaves to others.

    A client has ``header_seconds`` and so many bytes for a request's headers, and as long for the
    rest of a body that was answered unread. One that was refused for overload is not listened to
    for a moment: it got its answer at once, and asking again without waiting costs others nothing.
    """

    timer: asyncio.TimerHandle | None = None
    header_bytes: int | None = 0  # of the headers now arriving, `None` where none are
    reading = False  # between the first byte of a request and its last
    refused = False  # the request now arriving is answered already
    is_inside = False  # a request has come and is not answered
    deaf = 0.0  # seconds it was not listened to when last refused
    is_hasty = False  # what is read now was sent while it was not listened to

    def __init__(self, gate: Gate, header_seconds: float, **given: Any) -> None:  # noqa: ANN401 - uvicorn's
        super().__init__(**given)
        self.gate = gate
        self.header_seconds = header_seconds

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self.hurry()

    def data_received(self, data: bytes) -> None:
        """Count the bytes of headers."""
        if self.header_bytes is not None:
            self.header_bytes += len(data)
        super().data_received(data)
        if self.header_bytes is not None and self.header_bytes > MAX_HEADER_BYTES:
            self.send_400_response(f"the headers are over {MAX_HEADER_BYTES:,} bytes")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.reading, self.refused, self.header_bytes = True, False, self.header_bytes or 0
        self.hurry()

    def on_headers_complete(self) -> None:
        """Refuse a request that would wait too long, or hand it on."""
        self.header_bytes = None
        self.stop_timer()
        if not self.is_inside and (answer := self.overloaded()):
            self.refuse(answer)
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass over the body of a request that is answered."""
        if not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Count a request among those inside."""
        self.reading, self.header_bytes = False, 0
        self.stop_timer()
        if not self.refused:
            self.gate.inside += not self.is_inside
            self.is_inside = True
            super().on_message_complete()
        elif self.parser.should_keep_alive():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Wait for what is still to come of a body."""
        self.leave()
        super().on_response_complete()
        if self.reading:
            self.hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self.stop_timer()
        self.leave()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with an error body like every other."""
        self.transport.write(ApiError(400, msg).sent((b"connection", b"close")))
        self.transport.close()

    def overloaded(self) -> bytes | None:
        """Return the answer to a request that would wait too long."""
        length = dict(self.headers).get(b"content-length", b"0")
        method = self.parser.get_method().decode("ascii")
        waited = self.deaf if self.is_hasty else 0.0  # at most
        return self.gate.refusal_unread(method, int(length) if length.isdigit() else 0, waited)

    def leave(self) -> None:
        """Count a request no longer."""
        self.gate.inside -= self.is_inside
        self.is_inside = False

    def refuse(self, answer: bytes) -> None:
        """Answer a request whose headers have come, and do not listen for a moment."""
        self.refused = True
        self.transport.write(answer)
        least, most = DEAF_SECONDS
        self.deaf = min(2 * self.deaf, most) if self.is_hasty else least
        self.flow.pause_reading()
        self.loop.call_later(self.deaf, self.listen)
        self.hurry()

    def listen(self) -> None:
        """Hear the next request."""
        self.is_hasty = True
        self.flow.resume_reading()
        self.loop.call_soon(self.loop.call_soon, self.calm)  # after sockets were read once

    def calm(self) -> None:
        """Note that nothing was waiting."""
        self.is_hasty = False

    def hurry(self) -> None:
        """Close the connection unless what is awaited comes soon."""
        self.stop_timer()
        self.timer = self.loop.call_later(self.header_seconds, self.transport.close)

    def stop_timer(self) -> None:
        """Wait no longer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

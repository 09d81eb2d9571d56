"""What every request passes first: who asks, how much is sent, how long it takes, what is noted.

Keys are checked before a byte of the body is read. Notes are counts and times, never texts, keys
or paths as they were sent.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simcse.errors import SimcseError
from simcse.serve.errors import ApiError, internal_error
from simcse.serve.metrics import Metrics
from simcse.serve.settings import ServeConfig, read_keys

OPEN = ("/health", "/ready", "/", "/page.css", "/page.js", "/plots.js", "/icon.svg")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
MAX_HEADER_BYTES = 32 << 10
REJECTIONS = {
    401: "key",
    403: "forbidden",
    408: "slow body",
    413: "large body",
    415: "type",
    429: "overload",
    431: "large headers",
    504: "deadline",
}
DISCARD_SECONDS = 2.0  # for a client that is still sending what was refused
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)
log = logging.getLogger("simcse.serve")


class Keys:
    """The API keys accepted now; a file of keys is read again when it changes."""

    def __init__(self, settings: ServeConfig) -> None:
        self.fixed = [_digest(key.encode()) for key in settings.keys]
        self.file = None if settings.keys_file is None else Path(settings.keys_file)
        self.needed = bool(self.fixed or self.file)
        self._seen: object = None
        self._read: list[bytes] = []
        if self.file:
            read_keys(self.file)  # a file that is wrong stops the start

    def accept(self, authorization: bytes) -> bool:
        """Compare with every key in constant time."""
        given = _digest(authorization.removeprefix(b"Bearer ").strip())
        known = [*self.fixed, *(self._from_file(self.file) if self.file else ())]
        return any([hmac.compare_digest(given, key) for key in known])  # noqa: C419 - all of them

    def _from_file(self, path: Path) -> list[bytes]:
        try:
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen != self._seen:
                self._read = [_digest(key.encode()) for key in read_keys(path)]
                self._seen = seen
        except (OSError, SimcseError):
            log.warning(json.dumps({"event": "keys file cannot be read, the last keys stay"}))
        return self._read


class Turns:
    """Lets requests begin one after the other, one a round of the event loop.

    Where hundreds come at once, what is refused or asks for the server's health is answered
    between them, not after them all.
    """

    def __init__(self) -> None:
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.is_taken = False  # in this round

    async def take(self) -> None:
        """Wait for a round in which nobody has begun."""
        if self.is_taken:
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            await turn
        else:
            self.is_taken = True
            asyncio.get_running_loop().call_soon(self._pass_on)

    def _pass_on(self) -> None:
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():  # the client is still there
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self.is_taken = False


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServeConfig,
        metrics: Metrics,
        draining: Callable[[], bool],
        overload: Callable[[int, int, float], ApiError | None],
    ) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.draining = draining
        self.overload = overload
        self.keys = Keys(settings)
        self.turns = Turns()
        self.inside = 0  # requests come and not answered yet, counted by who receives them

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection of the ASGI server."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        exchange = _Exchange(self, scope, receive, send)
        if scope["method"] == "POST":
            await self.turns.take()
        await exchange.run()

    def refusal_unread(self, method: str, body_bytes: int, waited: float = 0.0) -> bytes | None:
        """Return the whole response to a request that is refused by its length alone, if it is.

        So little is done for it that what was accepted does not suffer. It may have ``waited`` some
        seconds before its headers were read.
        """
        if method != "POST" or body_bytes > self.settings.body_bytes:
            return None
        error = self.overload(body_bytes, self.inside, waited)
        if error is None:
            return None
        request_id = new_id()
        self.note(request_id, method, "other", error.status_code, 0.0)
        return error.sent(*HEADERS, (b"x-request-id", request_id.encode()))

    def note(
        self,
        request_id: str,
        method: str,
        route: str,
        status: int,
        seconds: float,
        *,
        received: int = 0,
    ) -> None:
        """Count and log a request that was answered."""
        self.metrics.count("requests_total", route=route, code=str(status))
        self.metrics.observe("request_seconds", seconds)
        if status in REJECTIONS:
            self.metrics.count("rejected_total", reason=REJECTIONS[status])
        facts: dict[str, Any] = {
            "id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(seconds * 1e3, 1),
            "bytes": received,
        }
        log.info(orjson.dumps(facts).decode())

    def refusal(self, scope: Scope) -> ApiError | None:
        """Say why a request is refused by its headers alone, if it is."""
        # The parser's own limit holds only for headers that come in pieces.
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            return ApiError(431, f"the headers are over {MAX_HEADER_BYTES:,} bytes")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")
        name = host[0] if host[2].isdecimal() else "".join(host)
        if self.settings.is_loopback and not self.keys.needed and name not in LOOPBACK_HOSTS:
            # A web page may point a name of its own at this machine (DNS rebinding).
            return ApiError(403, "this server answers only to its own name", code="host")
        if self.keys.needed and scope["path"] not in OPEN:
            if not self.keys.accept(headers.get(b"authorization", b"")):
                return ApiError(
                    401,
                    "missing or wrong API key; send the header Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
        return self._body_refusal(scope["method"], headers)

    def _body_refusal(self, method: str, headers: dict[bytes, bytes]) -> ApiError | None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.body_bytes:
            return too_large(self.settings)
        if method != "POST":
            return None
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            return ApiError(415, "expected the header Content-Type: application/json")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            return ApiError(415, "compressed bodies are not read; send the body as it is")
        return None


class _Exchange:
    """One request and its response."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self.gate, self.scope, self.inner_receive, self.inner_send = gate, scope, receive, send
        self.id = new_id()
        self.started = time.monotonic()
        self.status = 0
        self.received = 0
        self.complete = False  # the body is all here
        self.refused: ApiError | None = None  # while the application read the body
        scope.setdefault("state", {})["request_id"] = self.id

    async def run(self) -> None:
        try:
            refused = self.gate.refusal(self.scope)
            if refused is not None:
                await self._refuse(refused)
            else:
                await self.gate.app(self.scope, self.receive, self.send)
                if self.refused is not None:
                    await self._refuse(self.refused)
        except Exception as error:  # noqa: BLE001 - the server stays, the caller gets an id
            log.error(json.dumps({"id": self.id, "error": type(error).__name__}))
            await self._refuse(internal_error(self.id))
        finally:
            self._note()

    async def receive(self) -> Message:
        """Pass on the body; stop at the limits of size and time."""
        settings = self.gate.settings
        if self.complete:
            return await self.inner_receive()
        left = self.started + settings.body_seconds - time.monotonic()
        try:
            message = await asyncio.wait_for(self.inner_receive(), max(left, 0.001))
        except (TimeoutError, asyncio.TimeoutError):
            self.refused = ApiError(408, "the request body took too long to arrive")
            raise self.refused from None
        self.received += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.received > settings.body_bytes:
            self.refused = too_large(settings)
            raise self.refused
        return message

    async def send(self, message: Message) -> None:
        """Pass on the response with the headers that every one has.

        What the application makes of a body that is refused is left out: it would close the
        connection at once, see `_refuse`.
        """
        if self.refused is not None:
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], *HEADERS, (b"x-request-id", self.id.encode())]
            if self.gate.draining():
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self.inner_send(message)

    async def _refuse(self, error: ApiError) -> None:
        self.refused = None
        if self.status:  # too late: the response has begun
            return
        response: JSONResponse = error.response()
        if self.complete or self.scope["method"] in ("GET", "HEAD"):
            await response(self.scope, self.inner_receive, self.send)
            return
        # The answer goes out at once; the connection closes only when the client, which may
        # still be sending, has had time to read it. A closed socket would lose it.
        headers = [*response.raw_headers, (b"connection", b"close")]
        start = {"type": "http.response.start", "status": error.status_code, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": response.body, "more_body": True})
        await self._discard()
        await self.send({"type": "http.response.body", "body": b""})

    async def _discard(self) -> None:
        until = time.monotonic() + DISCARD_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.inner_receive(), left)
            except (TimeoutError, asyncio.TimeoutError):
                return
            if not message.get("more_body", False):
                return

    def _note(self) -> None:
        route = getattr(self.scope.get("route"), "path", "other")
        seconds = time.monotonic() - self.started
        self.gate.note(
            self.id, self.scope["method"], route, self.status, seconds, received=self.received
        )


def new_id() -> str:
    """Return a number for a request."""
    return uuid.uuid4().hex[:16]


def too_large(settings: ServeConfig) -> ApiError:
    """Return the refusal of a body over the limit."""
    return ApiError(413, f"the request body is over {settings.body_bytes:,} bytes")


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

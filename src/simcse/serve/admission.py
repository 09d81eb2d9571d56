"""Admission: every request passes here first, and what is rejected costs as little as possible.

Logs hold counts and times, never texts, keys or paths as they were sent.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import time
import uuid
from collections import OrderedDict
from pathlib import Path

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from simcse.errors import SimcseError
from simcse.serve.batching import Overloaded
from simcse.serve.errors import ApiError, to_api_error
from simcse.serve.service import Service
from simcse.serve.settings import ServeConfig, read_keys

OPEN_PATHS = ("/health", "/ready", "/", "/page.css", "/page.js", "/plots.js", "/icon.svg")
LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
MAX_HEADER_BYTES = 32 << 10
ARRIVAL_SECONDS = 0.2  # a request whose body takes longer takes no room in the queue yet
DISCARD_SECONDS = 2.0  # a client that still sends a rejected body has to read the answer
BYTES_PER_TOKEN = 8  # of a request body; low for European languages, so that estimates are high
RETRY_SECONDS = 1.0  # the shortest Retry-After
BACKOFF_SHARES = (0.1, 0.8)  # first and longest delay of a retry, as shares of `max_wait`
BACKOFF_CLIENTS = 10_000  # connections remembered; the oldest are forgotten
REJECTION_REASONS = {401: "key", 403: "forbidden", 408: "slow body", 413: "large body"}
REJECTION_REASONS |= {415: "type", 429: "overload", 431: "large headers", 504: "deadline"}
CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RESPONSE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", CONTENT_POLICY),
)
log = logging.getLogger("simcse.serve")


class AdmissionMiddleware:
    """Pure ASGI middleware around all routes.

    It checks, in this order and each before more of the request is read: the size of the headers
    (431), the host name (403), the API key (401), the announced size and type of the body (413,
    415), the expected waiting time (429 with ``Retry-After``), and while the body arrives its
    size (413) and time (408). Any exception of the application becomes a 500 with the request id.
    """

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self.app = app
        self.service = service
        self.settings = service.settings
        self.keys = ApiKeys(self.settings)
        # A web page may point a name of its own at this machine (DNS rebinding).
        self.only_loopback_hosts = self.settings.is_loopback and not self.keys.required
        self.backoff = RetryBackoff(self.settings.max_wait)
        self.in_flight = 0  # POST requests that were let in and are not answered yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        context = RequestContext(self.service, scope, receive, send)
        try:
            await self._handle(scope, context)
            if context.rejection is not None:
                await context.reject(context.rejection)
        except ApiError as error:
            await context.reject(error)
        except Exception as error:  # noqa: BLE001 - the server continues; the caller gets the id
            log.error(json.dumps({"id": context.id, "error": type(error).__name__}))
            message = f"internal error, request {context.id}"
            await context.reject(ApiError(500, message, code="internal"))
        finally:
            context.log()

    async def _handle(self, scope: Scope, context: "RequestContext") -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        self._check_caller(scope, headers)
        self._check_body(scope["method"], headers)
        if scope["method"] != "POST":
            return await self.app(scope, context.receive, context.send)
        await self._check_room(scope, headers)
        self.in_flight += 1
        timer = asyncio.get_running_loop().call_later(ARRIVAL_SECONDS, self._skip_slow, context)
        try:
            await self.app(scope, context.receive, context.send)
        finally:
            timer.cancel()
            self.in_flight -= context.is_counted

    def _skip_slow(self, context: "RequestContext") -> None:
        """Take no room for a request whose body arrives slowly."""
        if not context.is_read:
            context.is_counted = False
            self.in_flight -= 1

    def _check_caller(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            raise ApiError(431, f"the headers are over {MAX_HEADER_BYTES:,} bytes")
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")
        name = host[0] if host[2].isdecimal() else "".join(host)
        if self.only_loopback_hosts and name not in LOOPBACK_HOSTS:
            raise ApiError(403, "this server answers only requests to localhost", code="host")
        if self.keys.required and scope["path"] not in OPEN_PATHS:
            if not self.keys.accept(headers.get(b"authorization", b"")):
                raise ApiError(
                    401,
                    "the API key is missing or wrong; send the header Authorization: Bearer KEY",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _check_body(self, method: str, headers: dict[bytes, bytes]) -> None:
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.settings.body_bytes:
            raise body_too_large(self.settings)
        if method != "POST":
            return
        content_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if content_type != b"application/json":
            raise ApiError(415, "expected the header Content-Type: application/json")
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise ApiError(415, "compressed bodies are not accepted; send the body uncompressed")

    async def _check_room(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Reject a request that would wait too long, by the announced length of its body."""
        tokens = max(1, int(headers.get(b"content-length", b"0")) // BYTES_PER_TOKEN)
        client = tuple(scope.get("client") or ())
        waited = await self.backoff.wait(client)
        try:
            self.service.batcher.check_room(tokens, self.in_flight, waited)
        except Overloaded as error:
            self.backoff.rejected(client)
            raise to_api_error(error) from None


class RequestContext:
    """One request and its response: limits of the body, headers of the response, the log line."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service = service
        self.scope = scope
        self.server_receive = receive
        self.server_send = send
        self.id = uuid.uuid4().hex[:16]
        self.started = time.monotonic()
        self.status = 0
        self.received = 0
        self.is_read = False  # the whole body has arrived
        self.is_counted = True  # among the requests in flight
        self.rejection: ApiError | None = None  # raised while the application read the body

    async def receive(self) -> Message:
        """Pass on the body; stop at the limits of size and time."""
        if self.is_read:
            return await self.server_receive()
        settings = self.service.settings
        left = self.started + settings.body_seconds - time.monotonic()
        try:
            message = await asyncio.wait_for(self.server_receive(), max(left, 0.001))
        except (TimeoutError, asyncio.TimeoutError):
            self.rejection = ApiError(408, "the request body took too long to arrive")
            raise self.rejection from None
        self.received += len(message.get("body", b""))
        self.is_read = not message.get("more_body", False)
        if self.received > settings.body_bytes:
            self.rejection = body_too_large(settings)
            raise self.rejection
        return message

    async def send(self, message: Message) -> None:
        """Pass on the response with the headers that every response has."""
        if self.rejection is not None:  # `reject` sends the response, and reads on while it does
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], *RESPONSE_HEADERS, (b"x-request-id", self.id.encode())]
            if self.service.draining:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self.server_send(message)

    async def reject(self, error: ApiError) -> None:
        """Send an error unless a response has begun, and let the client finish sending."""
        self.rejection = None
        if self.status:
            return
        await error.response()(self.scope, self.server_receive, self.send)
        # A connection closed while the client sends would lose the response.
        until = time.monotonic() + DISCARD_SECONDS
        while not self.is_read and (left := until - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.server_receive(), left)
            except (TimeoutError, asyncio.TimeoutError):
                return
            self.is_read = not message.get("more_body", False)

    def log(self) -> None:
        """Count and log the request."""
        route = getattr(self.scope.get("route"), "path", "other")
        seconds = time.monotonic() - self.started
        metrics = self.service.metrics
        metrics.requests.labels(route, str(self.status)).inc()
        metrics.request_seconds.observe(seconds)
        if self.status in REJECTION_REASONS:
            metrics.rejected.labels(REJECTION_REASONS[self.status]).inc()
        record = {"id": self.id, "method": self.scope["method"], "route": route}
        record |= {"status": self.status, "ms": round(seconds * 1e3, 1), "bytes": self.received}
        log.info(orjson.dumps(record).decode())


class ApiKeys:
    """The API keys accepted now; a file of keys is read again when it changes."""

    def __init__(self, settings: ServeConfig) -> None:
        self.fixed = [_digest(key) for key in settings.keys]
        self.file = None if settings.keys_file is None else Path(settings.keys_file)
        self.required = bool(self.fixed or self.file)
        self._version: object = None
        self._from_file: list[bytes] = []
        if self.file:
            read_keys(self.file)  # a wrong file stops the start

    def accept(self, authorization: bytes) -> bool:
        """Compare with every key in constant time."""
        given = hashlib.sha256(authorization.removeprefix(b"Bearer ").strip()).digest()
        if self.file:
            self._read_changes(self.file)
        known = [*self.fixed, *self._from_file]
        return any([hmac.compare_digest(given, key) for key in known])  # noqa: C419 - all of them

    def _read_changes(self, path: Path) -> None:
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version != self._version:
                self._from_file = [_digest(key) for key in read_keys(path)]
                self._version = version
        except (OSError, SimcseError):
            log.warning(
                json.dumps({"event": "cannot read the keys file; the last keys stay valid"})
            )


class RetryBackoff:
    """Delays a connection that got 429 and asks again before ``Retry-After`` is over.

    The delay doubles each time. It stays below `max_wait`, so that a delayed request may still be
    accepted, and counts as waiting.
    """

    def __init__(self, max_wait: float) -> None:
        self.first, self.longest = (share * max_wait for share in BACKOFF_SHARES)
        self._clients: OrderedDict[tuple[object, ...], tuple[float, float]] = OrderedDict()

    async def wait(self, client: tuple[object, ...]) -> float:
        """Wait until the connection may ask again; return the seconds waited."""
        rejected_at, delay = self._clients.get(client, (-float("inf"), 0.0))
        seconds = rejected_at + delay - time.monotonic()
        if seconds <= 0:
            return 0.0
        await asyncio.sleep(seconds)
        return seconds

    def rejected(self, client: tuple[object, ...]) -> None:
        """Note that a request of the connection was rejected."""
        now = time.monotonic()
        rejected_at, delay = self._clients.pop(client, (-float("inf"), 0.0))
        is_early = now - rejected_at - delay < RETRY_SECONDS
        delay = min(2 * delay, self.longest) if is_early else self.first
        self._clients[client] = (now, delay)
        if len(self._clients) > BACKOFF_CLIENTS:
            self._clients.popitem(last=False)


def body_too_large(settings: ServeConfig) -> ApiError:
    """Return the rejection of a body over the limit."""
    return ApiError(413, f"the request body is over {settings.body_bytes:,} bytes")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()

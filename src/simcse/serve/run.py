"""Run the application under uvicorn: timeouts for slow clients, and an end that drops nobody."""

import asyncio
import json
import logging
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from simcse.errors import ResourceError
from simcse.serve.gate import MAX_HEADER_BYTES
from simcse.serve.service import Service
from simcse.serve.settings import ServeConfig

log = logging.getLogger("simcse.serve")


def serve(app: FastAPI, settings: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once.

    Raises:
        ResourceError: the port is taken.
    """
    _log_to_stderr()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_timed(settings.header_seconds),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(settings.exit_seconds),
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        backlog=2048,
    )
    server = DrainingServer(config, app.state.service, settings)
    try:
        sockets = [config.bind_socket()]
    except SystemExit as error:  # how uvicorn says that a port is taken
        raise ResourceError(f"cannot listen on {settings.host}:{settings.port}") from error
    server.run(sockets=sockets)


class DrainingServer(uvicorn.Server):
    """On SIGTERM `/ready` fails first; new requests are still taken for a while."""

    def __init__(self, config: uvicorn.Config, service: Service, settings: ServeConfig) -> None:
        super().__init__(config)
        self.service = service
        self.settings = settings
        self.until: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        for listening in sockets or ():
            host, port = listening.getsockname()[:2]
            log.info(json.dumps({"event": "listening", "url": f"http://{host}:{port}"}))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain, or at the second signal end."""
        if self.until is not None:
            self.should_exit = self.force_exit = True
            return
        self.service.draining = True
        wait = self.settings.drain_seconds if sig == signal.SIGTERM else 0.0
        self.until = time.monotonic() + wait

    async def on_tick(self, counter: int) -> bool:
        """Say whether to stop accepting."""
        if self.until is not None and time.monotonic() > self.until:
            self.should_exit = True
        return await super().on_tick(counter)


def _timed(seconds: float) -> type[H11Protocol]:
    """Return a protocol that closes a connection whose headers take longer than ``seconds``."""

    class TimedProtocol(H11Protocol):
        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, transport.close)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            is_waiting = self.cycle is None or self.cycle.response_complete
            if self.timer is not None and not is_waiting:
                self.timer.cancel()
                self.timer = None
            elif self.timer is None and is_waiting:
                self.timer = self.loop.call_later(seconds, self.transport.close)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.timer is not None:
                self.timer.cancel()
            super().connection_lost(exc)

    return TimedProtocol


class _JsonLines(logging.Formatter):
    """Our own records are JSON already; uvicorn's become an event."""

    def format(self, record: logging.LogRecord) -> str:
        own = record.name == log.name
        facts: dict[str, Any] = json.loads(record.getMessage()) if own else {}
        if not own:
            facts = {"event": record.getMessage().partition("\n")[0]}
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return json.dumps({"time": stamp, "level": record.levelname.lower(), **facts})


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name in ("simcse.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == log.name else logging.WARNING)

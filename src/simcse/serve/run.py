"""Run the application under uvicorn: its sockets and logs, and an end that drops nobody."""

import json
import logging
import signal
import socket
import sys
import time
from functools import partial
from types import FrameType

import torch
import uvicorn
from fastapi import FastAPI

from simcse.errors import ResourceError
from simcse.serve.connection import Connection
from simcse.serve.service import Service
from simcse.serve.settings import ServeConfig

# The model's thread takes Python's lock back after each of its operations, and by default may have
# to wait 5 ms each time while requests are being parsed.
SWITCH_SECONDS = 0.00005
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
        http=partial(Connection, app.state.gate, settings.header_seconds),  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(settings.exit_seconds),
        backlog=2048,
    )
    server = DrainingServer(config, app.state.service, settings)
    try:
        sockets = [config.bind_socket()]
    except SystemExit as error:  # how uvicorn says that a port is taken
        raise ResourceError(f"cannot listen on {settings.host}:{settings.port}") from error
    # Accepted connections inherit it. asyncio sets it only where a socket says it is TCP, which
    # uvicorn's does not; and then an answer's body waits until its headers are acknowledged.
    sockets[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sys.setswitchinterval(SWITCH_SECONDS)
    server.run(sockets=sockets)


def set_threads(threads: int | None) -> None:
    """Give torch so many threads; without a number one less than it has.

    Reading requests takes a core of its own: where the model has them all, its threads wait for one
    another whenever a request comes, and a batch takes longer than on one core less.
    """
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))


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


class _JsonLines(logging.Formatter):
    """Our own records are JSON already; uvicorn's become an event."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name != log.name:
            message = json.dumps({"event": message.partition("\n")[0]})
        fingerprint = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        return f'{{"time": "{fingerprint}", "level": "{record.levelname.lower()}", {message[1:]}'


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name in ("simcse.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO if name == log.name else logging.WARNING)

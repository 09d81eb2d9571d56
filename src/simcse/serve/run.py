"""Run the application under granian: its socket, its logs, and a shutdown that drops nobody."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time

import torch
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from simcse.errors import ResourceError
from simcse.serve.settings import ServeConfig

# The model's thread takes Python's lock again after each of its operations, and by default it may
# have to wait 5 ms each time while requests are parsed.
SWITCH_SECONDS = 0.00005
BACKLOG = 2048  # connections that may wait to be accepted
MAX_CONNECTIONS = 16_384  # granian accepts no more at a time
# Admission rejects headers over 32 KiB with an error body, granian only those over this buffer.
HEADER_BUFFER_BYTES = 128 << 10
log = logging.getLogger("simcse.serve")
Address = tuple[str, int]


def serve(app: FastAPI, settings: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once.

    Raises:
        ResourceError: the host is unknown or the port is taken.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.run(_serve(app, settings, find_address(settings.host, settings.port)))


def set_threads(threads: int | None) -> None:
    """Set the number of torch's threads; by default one less than it has.

    With a thread on every core, all of them wait for the one that is reading requests meanwhile.
    """
    torch.set_num_threads(threads or max(1, torch.get_num_threads() - 1))


def find_address(host: str, port: int) -> Address:
    """Return the numeric address of a host, and a free port for 0.

    Raises:
        ResourceError: the host is unknown or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # granian would share a taken port with its owner (SO_REUSEPORT): find out before it does.
        with socket.socket(family) as trial:
            if os.name == "posix":
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            return str(address[0]), int(trial.getsockname()[1])
    except OSError as error:
        raise ResourceError(f"cannot listen on {host}:{port}: {error}") from error


def make_server(app: FastAPI, settings: ServeConfig, address: Address) -> Server:
    """Return granian's server inside this process: one model, one event loop."""
    return Server(
        app,
        *address,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(1000 * settings.header_seconds),
            max_buffer_size=HEADER_BUFFER_BYTES,
        ),
        websockets=False,
        backlog=BACKLOG,
        backpressure=MAX_CONNECTIONS,
        log_enabled=False,
    )


async def wait_until_listening(address: Address, serving: "asyncio.Future[None]") -> None:
    """Return as soon as connections are accepted, or the server has ended."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    while not serving.done():
        with contextlib.suppress(OSError):
            host, port = address
            _, writer = await asyncio.open_connection(loopback.get(host, host), port)
            return writer.close()
        await asyncio.sleep(0.01)


async def _serve(app: FastAPI, settings: ServeConfig, address: Address) -> None:
    """Serve; at SIGTERM `/ready` fails first, and new requests are accepted for a while."""
    loop, service, stopping = asyncio.get_running_loop(), app.state.service, asyncio.Event()

    def stop(number: int) -> None:
        if service.draining:
            os._exit(128 + number)
        service.draining = True
        wait = settings.drain_seconds if number == signal.SIGTERM else 0.0
        loop.call_later(wait, stopping.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: loop.call_soon_threadsafe(stop, number))
    server = make_server(app, settings, address)
    serving = asyncio.ensure_future(server.serve())
    await wait_until_listening(address, serving)
    host, port = address
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log.info(json.dumps({"event": "listening", "url": url}))
    stopped = asyncio.ensure_future(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    server.stop()  # type: ignore[no-untyped-call]
    await asyncio.wait([serving], timeout=settings.exit_seconds)
    if not serving.done():  # granian waits for running requests without a limit
        log.warning(json.dumps({"event": "requests still run after serve.exit_seconds"}))
        os._exit(1)
    await serving


class _JsonLines(logging.Formatter):
    """Add time and level to the JSON object that a record's message is."""

    def format(self, record: logging.LogRecord) -> str:
        written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        level = record.levelname.lower()
        return f'{{"time": "{written}", "level": "{level}", {record.getMessage()[1:]}'

"""What granian, hypercorn and uvicorn do with hostile clients, with public settings only.

    pip install granian hypercorn uvicorn h11 httptools
    python benchmarks/http_servers.py --output benchmarks/results/http-servers.json

Each runs the same small ASGI application in a process of its own. Faults are those of the server's
tests: bytes on a socket, then what comes back. Rates are those of Debian's `hey`, 32 clients.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import free_ports, hey, processor
from without_server import SENTENCE

SERVERS = ("granian", "hypercorn", "uvicorn h11", "uvicorn httptools")
HEADER_SECONDS = 1
HEADER_BYTES = 32 << 10
HOST = b"Host: localhost\r\n"


async def app(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
    """Answer 401 without the body on /early, after two seconds on /slow, else the body's size."""
    if scope["type"] == "lifespan":
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, size = 401, 0
    if scope["path"] != "/early":
        more, status = True, 200
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        if scope["path"] == "/slow":
            await asyncio.sleep(2)
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def run(server: str, port: int) -> None:
    """Serve until SIGTERM."""
    if server == "granian":
        from granian.constants import HTTPModes, Interfaces
        from granian.http import HTTP1Settings
        from granian.server.embed import Server

        limits = HTTP1Settings(1000 * HEADER_SECONDS, max_buffer_size=HEADER_BYTES)
        made = Server(app, port=port, interface=Interfaces.ASGI, http1_settings=limits)
        made.http, made.websockets = HTTPModes.http1, False

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, made.stop)
            await made.serve()

        asyncio.run(serve())
    elif server == "hypercorn":
        from hypercorn.asyncio import serve as serve_hypercorn
        from hypercorn.config import Config

        config = Config()
        config.bind = [f"127.0.0.1:{port}"]
        config.keep_alive_timeout, config.h11_max_incomplete_size = HEADER_SECONDS, HEADER_BYTES
        asyncio.run(serve_hypercorn(app, config))
    else:
        import uvicorn

        uvicorn.run(
            app,
            port=port,
            http=server.split()[1],
            h11_max_incomplete_event_size=HEADER_BYTES,
            timeout_keep_alive=HEADER_SECONDS,
            access_log=False,
            log_level="error",
        )


def exchange(port: int, *pieces: bytes, drip: bytes = b"") -> str:
    """Send pieces, then drip for ten seconds; return the status, or how the connection ended."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            until, answer = time.monotonic() + 10, None
            while answer is None and time.monotonic() < until:
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
                    break
                connection.sendall(drip)
        except OSError as error:
            return type(error).__name__
    return "open" if answer is None else answer[9:12].decode() or "closed"


def faults(port: int, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
    """Try each fault; the last one ends the server."""
    post = b"POST /x HTTP/1.1\r\n" + HOST
    upgrade = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    )
    found: dict[str, Any] = {
        "S16 nothing": exchange(port),
        "S16 half a header": exchange(port, b"GET / HTTP/1.1\r\nHost: lo"),
        "S16 header dripped": exchange(port, b"GET / HTTP/1.1\r\nX: ", drip=b"a"),
        "S25 line ends dripped": exchange(port, drip=b"\r\n"),
        "S10 header of 100 kB": exchange(
            port, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 100_000 + b"\r\n\r\n"
        ),
        "S10 2,000 headers": exchange(
            port, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 2000 + b"\r\n"
        ),
        "S11 401 before the body": exchange(
            port, b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 60000000\r\n\r\n"
        ),
        "S25 h2c with a body": exchange(port, post + upgrade + b"Content-Length: 5\r\n\r\nhello"),
    }
    slow: list[str] = []
    request = b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n"
    threads = [
        threading.Thread(target=lambda: slow.append(exchange(port, request))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    return {**found, "S17 answers after SIGTERM": " ".join(slow)}


def try_server(server: str) -> dict[str, Any]:
    """Start a server, load it, and try the faults."""
    (port,) = free_ports(1)
    process = subprocess.Popen([sys.executable, __file__, "--run", server, "--port", str(port)])
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        urls = (f"http://127.0.0.1:{port}/{path}" for path in ("x", "early"))
        rates = []
        for url in urls:
            result = hey(url, {"input": SENTENCE}, 32, 3)
            rates.append(round(sum(result["statuses"].values()) / 3))
        return {"rate": rates[0], "rate of 401": rates[1], **faults(port, process)}
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure all servers, or run one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", choices=SERVERS)
    parser.add_argument("--port", type=int)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.run:
        return run(arguments.run, arguments.port)
    report = {server: try_server(server) for server in SERVERS}
    for name in report["granian"]:
        print(name, *(report[server][name] for server in SERVERS), sep=" | ")
    if arguments.output:
        machine = {"cpu": processor(), "cores": os.cpu_count()}
        arguments.output.write_text(json.dumps({**machine, "servers": report}, indent=1) + "\n")


if __name__ == "__main__":
    main()

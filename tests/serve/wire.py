"""Requests as bytes on a socket, for what no HTTP client would send."""

import contextlib
import socket
import time

from .conftest import WAIT


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)


def read_all(connection):
    """Return all bytes until the server closes the connection."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while block := connection.recv(65536):
            answer += block
    return answer


def raw(server, request):
    """Send bytes, or several pieces of them, and return all that comes back."""
    with connect(server) as connection:
        for piece in [request] if isinstance(request, bytes) else request:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(piece)
        return read_all(connection)


def drip(server, start, byte):
    """Send a byte ten times a second until the server answers or closes; return the answer."""
    with connect(server) as connection:
        connection.sendall(start)
        connection.settimeout(0.1)
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            with contextlib.suppress(TimeoutError):
                return connection.recv(65536)
            try:
                connection.sendall(byte)
            except OSError:
                return b""
        raise AssertionError("the server neither answers nor closes")


def head(length, *, more=b"", close=True):
    """Return the headers of a request to /v1/embeddings."""
    return (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + more
        + b"Content-Length: %d\r\n" % length
        + (b"Connection: close\r\n\r\n" if close else b"\r\n")
    )

"""The nginx configuration of docs/serving.md in front of a real server; needs nginx and openssl."""

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import EMBED, KEY, WAIT

pytestmark = [
    pytest.mark.slow,
    *(
        pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")
        for program in ("nginx", "openssl")
    ),
]
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
MAIN = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {example}
}}
"""


def configuration(folder, port, upstream):
    """Return the documented example with the ports, files and times of a test."""
    example = re.search(r"```nginx\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]
    for given, wanted in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
        ("/etc/ssl/certs/simcse.pem", f"{folder}/cert.pem"),
        ("/etc/ssl/private/simcse.key", f"{folder}/key.pem"),
        ("rate=20r/s", "rate=1r/m"),  # so that the test does not depend on its own speed
        ("client_header_timeout 10s", "client_header_timeout 1s"),
        ("client_body_timeout 20s", "client_body_timeout 1s"),
    ):
        assert given in example, given
        example = example.replace(given, wanted)
    return MAIN.format(folder=folder, example=example, user="user root;" if not os.getuid() else "")


class Proxy:
    """A running nginx in front of a server."""

    def __init__(self, port):
        self.port = port

    def tls(self, *protocols):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(protocols or ("http/1.1",))
        return context

    def connect(self, *protocols):
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT)
        return self.tls(*protocols).wrap_socket(plain, server_hostname="embeddings.example.org")

    def ask(self, method, path, body=None, **headers):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls())
        kind = {"Content-Type": "application/json"} if body else {}
        with contextlib.closing(connection):
            connection.request(method, path, body, {**kind, **headers})
            response = connection.getresponse()
            return response.status, response.headers, response.read()


@pytest.fixture
def proxy(start, tiny_model_folder, tmp_path):
    server = start("--model", tiny_model_folder, "--name", "tiny", keys=KEY)
    certificate = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x"]
        + [*map(str, certificate)],
        check=True,
        capture_output=True,
        timeout=WAIT,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    file = tmp_path / "nginx.conf"
    file.write_text(configuration(tmp_path, port, server.port), encoding="utf-8")
    nginx = subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(file)])
    try:
        until = time.monotonic() + WAIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert nginx.poll() is None, (tmp_path / "error.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield Proxy(port)
    finally:
        nginx.terminate()
        nginx.wait(WAIT)


def test_the_documented_proxy(proxy):
    body = json.dumps({"input": "the dog runs", "model": "tiny"})
    status, _, answer = proxy.ask("POST", EMBED, body, Authorization=f"Bearer {KEY}")
    assert (status, len(json.loads(answer)["data"])) == (200, 1)
    with proxy.connect("h2", "http/1.1") as connection:
        assert connection.selected_alpn_protocol() == "h2"
    status, headers, answer = proxy.ask("POST", EMBED, body)  # the server's own errors pass
    assert (status, json.loads(answer)["error"]["code"]) == (401, "invalid_api_key")
    assert headers["WWW-Authenticate"] == "Bearer"
    assert proxy.ask("GET", "/metrics", Authorization=f"Bearer {KEY}")[0] == 403
    with proxy.connect() as connection:  # a body that is too large, by its header
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"8 MiB" in answer + connection.recv(65536)
    for slow in (
        b"GET / HTTP/1.1\r\nHost: x",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
    ):
        with proxy.connect() as connection:
            connection.sendall(slow)
            assert connection.recv(65536)[9:12] in (b"", b"408")
    answers = [proxy.ask("GET", "/health") for _ in range(60)]
    assert {status for status, *_ in answers} == {200, 429}
    headers, answer = next(rest for status, *rest in answers if status == 429)
    assert headers["Retry-After"] == "1"
    assert json.loads(answer)["error"]["type"] == "rate_limit_error"

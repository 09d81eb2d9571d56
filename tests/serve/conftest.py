"""A served tiny model: in this process, and as a real one behind a socket."""

import contextlib
import http.client
import json
import re
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("faiss")

from fastapi.testclient import TestClient

from commands import Command
from postgres import Postgres, servers
from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint
from simcse.model.settings import ModelSettings
from simcse.serve.app import create_app
from simcse.serve.settings import ServeConfig

KEY = "k" * 20
WAIT = 600.0  # seconds; machines that run tests are shared
EMBED = "/v1/embeddings"
TEXTS = ["A man plays the guitar.", "The dog runs.", "The cat eats.", "<script>alert(1)</script>"]


def embed(client, given, **more):
    return client.post(EMBED, json={"input": given, "model": "tiny", **more})


def rejected(response, status, *, param=None):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    if param is not None:
        assert error["param"] == param
    return error


@pytest.fixture
def encoder(make_encoder):
    return make_encoder(ModelSettings(pooling="mean", max_length=32, normalize=True))


@pytest.fixture
def index(encoder, tmp_path):
    opened = SqliteIndex.create(tmp_path / "index", model_fingerprint(encoder, "tiny"))
    rows = [IndexRow(str(at), text, {"n": at, "lang": "en"}) for at, text in enumerate(TEXTS)]
    opened.add(rows, encoder.encode(TEXTS))
    opened.commit()
    return opened


@pytest.fixture
def make_client(make_app_client, index):
    """Clients of the application in this process: ``make_client(writable=True, ...)``."""
    return lambda *, with_index=True, **settings: make_app_client(
        index if with_index else None, **settings
    )


@pytest.fixture
def own_postgres():
    """A PostgreSQL of the test's own."""
    with servers() as home:
        yield Postgres(home).create().start()


@pytest.fixture
def make_app_client(encoder):
    """Clients of the application over an index: ``make_app_client(index, writable=True, ...)``."""
    with contextlib.ExitStack() as stack:

        def make(index, **settings):
            app = create_app(encoder, index, ServeConfig(**settings), name="tiny")
            client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(make_client):
    return make_client(writable=True)


class Server:
    """``simcse serve`` as a process."""

    def __init__(self, process, port):
        self.process, self.port = process, port

    def connect(self, timeout=WAIT):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def ask(self, method, path, body=None, *, headers=None, timeout=WAIT):
        connection = self.connect(timeout)
        try:
            content = None if body is None else json.dumps(body)
            kind = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, content, {**kind, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path):
    """Start servers: ``start("--index", folder, "serve.max_wait=2", keys="...")``."""
    running = []

    def begin(*arguments, keys="", log=None):
        log = log or tmp_path / f"log{len(running)}.txt"
        log.touch()
        command = ("serve", "--port", "0", *arguments)
        process = Command(command, stderr=log, env={"SIMCSE_API_KEYS": keys})
        running.append(process)
        until = time.monotonic() + WAIT
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        return Server(process, int(found[1]))

    yield begin
    for process in running:
        process.kill()
        process.wait()

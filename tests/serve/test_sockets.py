"""A real server behind a real socket: overload, slow clients, hang-ups, signals."""

import concurrent.futures
import json
import signal
import socket
import time

import numpy as np
import pytest

from simcse import SentenceEncoder
from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint

from .conftest import KEY, TEXTS

pytestmark = pytest.mark.slow
EMBED = "/v1/embeddings"


@pytest.fixture
def served(start, tiny_model_folder):
    """Start the tiny model with these arguments."""
    return lambda *arguments, **more: start(
        *("--model", tiny_model_folder, "--name", "tiny", "--precision", "fp32"),
        *arguments,
        **more,
    )


def embed(server, given, **more):
    status, headers, body = server.ask("POST", EMBED, {"input": given, "model": "tiny"}, **more)
    return status, headers, json.loads(body)


def raw(server, request, *, pause=0.0, seconds=20.0):
    """Send bytes in pieces and return all that comes back."""
    pieces = [request] if isinstance(request, bytes) else request
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        answer = b""
        while block := connection.recv(65536):
            answer += block
    return answer


def head(length, *, more=b""):
    return (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        + more
        + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % length
    )


def test_s9_s10_s16_clients_that_send_too_much_or_too_slowly(served):
    server = served("serve.body_seconds=1", "serve.header_seconds=1")
    # S9: a client that sends 60 MB is told so while it sends.
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(head(60 << 20))
        connection.sendall(b" " * 65536)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    assert raw(server, [chunked, *[chunk] * 9]).startswith(b"HTTP/1.1 413")
    packed = head(20, more=b"Content-Encoding: gzip\r\n") + b"\x1f\x8b" + bytes(18)
    assert raw(server, packed).startswith(b"HTTP/1.1 415")
    # S10
    long = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n"
    assert raw(server, long)[9:12] in (b"400", b"431")
    # S16: headers, or a body, that never end; and a connection on which nothing comes.
    started = time.monotonic()
    assert raw(server, b"GET /health HTTP/1.1\r\nHost: local") == b""
    assert raw(server, b"") == b""
    assert raw(server, head(100) + b"{").startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 15
    assert embed(server, "a")[0] == 200


def test_s13_s14_s15_overload_is_refused_at_once_and_the_rest_is_served(served, tmp_path):
    log = tmp_path / "log"
    slow = ("serve.batch_tokens=16", "serve.max_wait=0.3", "serve.deadline=3")
    server = served(*slow, log=log)
    text = "a man plays the guitar and the dog runs after the cat"

    def one(at):
        started = time.monotonic()
        status, headers, body = embed(server, [f"{text} {at}"] * 20)
        return status, headers, body, time.monotonic() - started

    embed(server, text)  # the rate is known from now on
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        running = [pool.submit(one, at) for at in range(180)]
        healths = []
        while not all(future.done() for future in running):
            started = time.monotonic()
            assert server.ask("GET", "/health")[0] == 200
            healths.append(time.monotonic() - started)
        found = [future.result() for future in running]
    statuses = [status for status, *_ in found]
    assert set(statuses) == {200, 429}
    for status, headers, body, _ in found:
        if status == 429:
            assert int(headers["Retry-After"]) >= 1
            assert body["error"]["code"] == "overloaded"
        else:
            assert len(body["data"]) == 20
    text_of_log = log.read_text()
    assert "guitar" not in text_of_log
    for line in text_of_log.splitlines():
        json.loads(line)


def test_s14_s15_deadlines_and_hang_ups_drop_queued_work(served):
    server = served("serve.batch_tokens=16", "serve.deadline=0.2", "serve.max_wait=60")
    body = json.dumps({"input": ["the dog is the cat " * 5] * 2000, "model": "tiny"}).encode()
    status, _, answer = server.ask("POST", EMBED, json.loads(body))
    assert status == 504
    assert json.loads(answer)["error"]["type"] == "timeout_error"

    def inputs():
        lines = server.ask("GET", "/metrics")[2].decode().splitlines()
        return float(
            next(line for line in lines if line.startswith("simcse_inputs_total")).split()[-1]
        )

    def settled():
        before = -1.0
        while before != (before := inputs()):
            time.sleep(0.3)
        return before

    assert settled() < 1900  # the rest of the 2,000 was not computed
    before = inputs()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head(len(body)) + body)
        time.sleep(0.05)
    assert settled() - before < 1900
    assert embed(server, "a")[0] == 200


def test_s17_sigterm_under_load_drops_nobody(served):
    server = served("serve.drain_seconds=1.5")
    answers, stopped = [], []

    def client(at):
        while not stopped:
            answers.append(embed(server, [f"the dog {at} runs"] * 8)[0])

    def balancer():  # sends no more as soon as the server says that it is going
        while server.ask("GET", "/ready")[0] == 200:
            time.sleep(0.05)
        stopped.append(True)

    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        running = [pool.submit(client, at) for at in range(8)]
        watching = pool.submit(balancer)
        time.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        watching.result(timeout=60)
        for future in running:
            future.result(timeout=60)
    assert len(answers) > 8
    assert set(answers) == {200}
    assert server.process.wait(timeout=60) == 0


@pytest.fixture
def stored(tiny_model_folder, tmp_path):
    """An index of one row, made with the model that is served."""
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    index = SqliteIndex.create(tmp_path / "index", model_fingerprint(encoder, "tiny"))
    index.add([IndexRow("first", "the dog runs")], encoder.encode(["the dog runs"]))
    index.commit()
    return index.folder


def add_until_killed(server, acknowledged, told):
    for at in range(1000):
        rows = [{"id": f"{at}-{part}", "text": f"row {at} {part}"} for part in range(3)]
        try:
            status, *_ = server.ask("POST", "/v1/index/add", {"rows": rows}, headers=told)
        except OSError:
            return
        assert status == 200
        acknowledged.extend(row["id"] for row in rows)


def test_s18_after_a_kill_the_index_is_whole_and_every_acknowledged_row_there(served, stored):
    server = served("--index", stored, "--writable", keys=f"{KEY},{'o' * 20}")
    told, acknowledged = {"Authorization": f"Bearer {KEY}"}, []
    assert server.ask("GET", "/v1/models")[0] == 401
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(add_until_killed, server, acknowledged, told)
        while len(acknowledged) < 12 and not running.done():
            time.sleep(0.02)
        server.process.kill()
        running.result(timeout=30)
    opened = SqliteIndex.open(stored)
    assert opened.verify() == []
    there = [row.id for row in opened.sample(100_000)[0]]
    assert set(acknowledged) <= set(there)
    assert len(there) == len(set(there))
    again = served("--index", stored, keys=KEY)
    assert again.ask("GET", "/ready")[0] == 200
    status, _, body = again.ask("POST", "/v1/search", {"query": "row 1 1", "k": 1}, headers=told)
    assert status == 200
    assert json.loads(body)["results"][0][0]["id"] == "1-1"


def test_the_official_client_works(served, encoder):
    openai = pytest.importorskip("openai")
    server = served(keys=KEY)
    base = f"http://127.0.0.1:{server.port}/v1"
    with openai.OpenAI(api_key=KEY, base_url=base, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        packed = client.embeddings.create(model="tiny", input=["The dog runs.", "A cat eats."])
        plain = client.embeddings.create(
            model="tiny", input=["The dog runs.", "A cat eats."], encoding_format="float"
        )
        for one, other in zip(packed.data, plain.data, strict=True):
            np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-7)
        assert packed.usage.prompt_tokens > 0
        with pytest.raises(openai.BadRequestError, match="32"):
            client.embeddings.create(model="tiny", input="dog " * 100)
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            client.embeddings.create(model="other", input="a")
    with (
        openai.OpenAI(api_key="wrong", base_url=base, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()


@pytest.mark.filterwarnings("ignore")  # of LangChain's own
def test_langchain_works_as_documented(served, encoder):
    langchain = pytest.importorskip("langchain_openai")
    server = served(keys=KEY)
    embeddings = langchain.OpenAIEmbeddings(
        model="tiny",
        base_url=f"http://127.0.0.1:{server.port}/v1",
        api_key=KEY,
        check_embedding_ctx_length=False,
    )
    found = np.array(embeddings.embed_documents(TEXTS[:2]))
    units = found / np.linalg.norm(found, axis=1, keepdims=True)  # the fixture's has unit length
    np.testing.assert_allclose(units, encoder.encode(TEXTS[:2]), atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of LlamaIndex's own
def test_llamaindex_works_as_documented(served, encoder):
    llama = pytest.importorskip("llama_index.embeddings.openai_like")
    server = served(keys=KEY)
    embeddings = llama.OpenAILikeEmbedding(
        model_name="tiny", api_base=f"http://127.0.0.1:{server.port}/v1", api_key=KEY
    )
    found = np.array(embeddings.get_text_embedding_batch(TEXTS[:2]))
    units = found / np.linalg.norm(found, axis=1, keepdims=True)  # as above
    np.testing.assert_allclose(units, encoder.encode(TEXTS[:2]), atol=1e-5)
    query = np.array(embeddings.get_query_embedding(TEXTS[0]))
    np.testing.assert_allclose(query, found[0], atol=1e-6)

"""A real server behind a real socket: overload, slow clients, disconnects, signals."""

import concurrent.futures
import json
import signal
import time

import numpy as np
import pytest

from commands import Command
from simcse import SentenceEncoder
from simcse.index.sqlite import SqliteIndex
from simcse.io.rows import IndexRow
from simcse.model.fingerprint import model_fingerprint

from .conftest import EMBED, KEY, TEXTS, WAIT
from .wire import connect, drip, head, raw

pytestmark = pytest.mark.slow


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


def test_s9_s10_s16_clients_that_send_too_much_or_too_slowly(served):
    server = served("serve.body_seconds=1", "serve.header_seconds=1")
    # S9: a client that sends 60 MB gets the answer while it sends.
    with connect(server) as connection:
        connection.sendall(head(60 << 20))
        connection.sendall(b" " * 65536)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    assert raw(server, [chunked, *[chunk] * 9]).startswith(b"HTTP/1.1 413")
    packed = head(20, more=b"Content-Encoding: gzip\r\n") + b"\x1f\x8b" + bytes(18)
    assert raw(server, packed).startswith(b"HTTP/1.1 415")
    # S10: long headers, headers without end, too many headers.
    start = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: "
    long = raw(server, start + b"a" * 100_000 + b"\r\nConnection: close\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 431")
    error = json.loads(long.partition(b"\r\n\r\n")[2])["error"]
    assert "headers are over" in error["message"]
    assert raw(server, [start, *[b"a" * 4096] * 100])[9:12] in (b"431", b"")
    many = b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 10_000 + b"\r\n"
    assert raw(server, many).startswith(b"HTTP/1.1 431")
    # S16: headers, or a body, that never end; and a connection on which nothing comes.
    started = time.monotonic()
    assert raw(server, b"GET /health HTTP/1.1\r\nHost: local") == b""
    assert raw(server, b"") == b""
    assert raw(server, head(100) + b"{").startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 15
    assert drip(server, b"GET /health HTTP/1.1\r\nX-Long: ", b"a") == b""
    assert drip(server, head(1000), b" ").startswith(b"HTTP/1.1 408")
    assert embed(server, "a")[0] == 200


def test_s25_a_protocol_upgrade_is_not_taken_and_dripped_line_ends_are_closed(served):
    server = served("serve.header_seconds=1")
    body = json.dumps({"input": "the dog runs", "model": "tiny"}).encode()
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    )
    answer = raw(server, head(len(body), more=offer, close=False) + body)
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["data"][0]["index"] == 0
    assert drip(server, b"", b"\r\n")[9:12] in (b"400", b"")


def test_what_is_not_http_is_400_and_closed(served):
    server = served()
    assert raw(server, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert embed(server, "a")[0] == 200


def test_s11_a_wrong_key_is_rejected_before_the_body_is_sent(served):
    server = served(keys=KEY)
    for authorization in (b"", b"Authorization: Bearer wrong\r\n"):
        with connect(server) as connection:
            connection.sendall(head(1000, more=authorization))  # and no body
            assert connection.recv(65536).startswith(b"HTTP/1.1 401")
    # A client that only reads after it has sent everything gets the answer, too.
    answer = raw(server, [head(4 << 20), *[b" " * (1 << 20)] * 4])
    assert answer.startswith(b"HTTP/1.1 401")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"


def test_s13_a_rejected_connection_stays_open_and_its_next_request_is_read(served):
    server = served("serve.queue_tokens=4")
    connection = server.connect()
    for given, expected in (("the dog " * 5, 429), ([5, 6], 200), ("the dog " * 5, 429)):
        body = json.dumps({"input": given, "model": "tiny"})
        connection.request("POST", EMBED, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (expected, True)
    connection.close()


def test_s13_overload_is_rejected_and_the_rest_is_served(served, tmp_path):
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


def test_s14_s15_deadlines_and_disconnects_drop_queued_work(served):
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
    with connect(server) as connection:
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
        try:
            running = [pool.submit(client, at) for at in range(8)]
            watching = pool.submit(balancer)
            time.sleep(1.0)
            server.process.send_signal(signal.SIGTERM)
            watching.result(timeout=WAIT)
        finally:
            stopped.append(True)  # else the clients, and with them this test, would never end
        for future in running:
            future.result(timeout=WAIT)
    assert len(answers) > 8
    assert set(answers) == {200}
    assert server.process.wait(timeout=WAIT) == 0


def test_s17_the_end_is_bounded_and_a_second_signal_ends_at_once(served):
    limits = ("serve.drain_seconds=0", "serve.body_seconds=600")
    for signals, more in ((1, "serve.exit_seconds=1"), (2, "serve.exit_seconds=600")):
        server = served(*limits, more)
        with connect(server) as connection:
            connection.sendall(head(1000))  # a request that never ends
            time.sleep(0.2)
            for _ in range(signals):
                server.process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            assert server.process.wait(timeout=WAIT) == (1 if signals == 1 else 143)


def test_a_taken_port_is_an_error_with_exit_code_5(served, start, tiny_model_folder, tmp_path):
    server, log = served(), tmp_path / "second"
    command = ("serve", "--port", server.port, "--model", tiny_model_folder)
    assert Command(command, stderr=log).wait(timeout=WAIT) == 5
    assert f"cannot listen on 127.0.0.1:{server.port}" in log.read_text()


@pytest.fixture
def stored(tiny_model_folder, tmp_path):
    """An index of one row, made with the model that is served."""
    encoder = SentenceEncoder.load(tiny_model_folder, precision="fp32")
    index = SqliteIndex.create(tmp_path / "index", model_fingerprint(encoder, "tiny"))
    index.add([IndexRow("first", "the dog runs")], encoder.encode(["the dog runs"]))
    index.commit()
    return index.folder


def add_until_killed(server, acknowledged, headers):
    for at in range(1000):
        rows = [{"id": f"{at}-{part}", "text": f"row {at} {part}"} for part in range(3)]
        try:
            status, *_ = server.ask("POST", "/v1/index/add", {"rows": rows}, headers=headers)
        except OSError:
            return
        assert status == 200
        acknowledged.extend(row["id"] for row in rows)


def test_s18_after_a_kill_the_index_is_whole_and_every_acknowledged_row_there(served, stored):
    server = served("--index", stored, "--writable", keys=f"{KEY},{'o' * 20}")
    headers, acknowledged = {"Authorization": f"Bearer {KEY}"}, []
    assert server.ask("GET", "/v1/models")[0] == 401
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(add_until_killed, server, acknowledged, headers)
        while len(acknowledged) < 12 and not running.done():
            time.sleep(0.02)
        server.process.kill()
        running.result(timeout=WAIT)
    opened = SqliteIndex.open(stored)
    assert opened.verify() == []
    there = [row.id for row in opened.sample(100_000)[0]]
    assert set(acknowledged) <= set(there)
    assert len(there) == len(set(there))
    again = served("--index", stored, keys=KEY)
    assert again.ask("GET", "/ready")[0] == 200
    status, _, body = again.ask("POST", "/v1/search", {"query": "row 1 1", "k": 1}, headers=headers)
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

"""The HTTP API in this process: what it answers, and what it rejects."""

import base64
import concurrent.futures
import json
import threading
import time

import numpy as np
import pytest
from fastapi.testclient import TestClient

from simcse.errors import ConfigError
from simcse.index.uri import create_index
from simcse.model.fingerprint import model_fingerprint
from simcse.model.settings import ModelSettings
from simcse.serve.app import create_app
from simcse.serve.settings import ServeConfig, parse_keys

from .conftest import EMBED, KEY, TEXTS, WAIT, embed, rejected

OPENAI_LIMIT = 2048


def vectors(response):
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], np.float32)


def test_embeddings_are_those_of_the_library(client, encoder):
    response = embed(client, TEXTS)
    np.testing.assert_allclose(vectors(response), encoder.encode(TEXTS), atol=1e-5)
    tokens = sum(map(len, encoder.tokenizer.ids(TEXTS)))
    assert response.json()["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert [item["index"] for item in response.json()["data"]] == [0, 1, 2, 3]
    assert response.json()["model"] == "tiny"
    ids = encoder.tokenizer.ids(TEXTS)
    np.testing.assert_allclose(vectors(embed(client, ids)), encoder.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(vectors(embed(client, ids[0])), encoder.encode(TEXTS[:1]), atol=1e-5)


def test_s20_alone_together_in_any_order_and_encoding(client):
    together = vectors(embed(client, TEXTS))
    backwards = vectors(embed(client, TEXTS[::-1]))
    np.testing.assert_allclose(backwards[::-1], together, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(vectors(embed(client, text))[0], vector, atol=1e-5)
    packed = embed(client, TEXTS, encoding_format="base64").json()["data"]
    decoded = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in packed]
    np.testing.assert_array_equal(decoded, vectors(embed(client, TEXTS)))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"\xff\xfe",
        b'{"input": "a", "model": "tiny", "dimensions": NaN}',
        b'{"input": NaN, "model": "tiny"}',
        b'{"input": "a", "model": "tiny", "user": Infinity}',
        b'{"input": "\\ud800", "model": "tiny"}',  # S2
        b'{"input": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",  # S8
        b"[" * 100_000,
        b'"text"',
        b"null",
    ],
)
def test_s1_s2_s8_what_is_no_request_is_400(client, body):
    rejected(client.post(EMBED, content=body, headers={"Content-Type": "application/json"}), 400)
    assert embed(client, "a").status_code == 200


@pytest.mark.parametrize(
    "given",
    ["", [], [""], ["a", " "], "\x00\n", ["a"] * (OPENAI_LIMIT + 1), [[]], ["a", 1], 5, True, None]
    + [{"a": 1}, [-1], [1.5], [True], [[1], []], [[1]] * (OPENAI_LIMIT + 1)],
)
def test_s3_inputs_that_are_none(client, given):
    rejected(embed(client, given), 400, param="input")


def test_2048_inputs_are_taken(client):
    assert len(vectors(embed(client, ["a"] * OPENAI_LIMIT))) == OPENAI_LIMIT


@pytest.mark.parametrize("dimensions", [0, -1, True, 33, 16, 1.5, "32"])
def test_s4_dimensions_the_model_has_not(client, dimensions):
    rejected(embed(client, "a", dimensions=dimensions), 400, param="dimensions")
    assert vectors(embed(client, "a", dimensions=32)).shape == (1, 32)


def test_dimensions_the_model_was_trained_for_are_served(make_encoder):
    settings = ModelSettings("mean", max_length=32, normalize=True, matryoshka=(16, 8))
    encoder = make_encoder(settings)
    app = create_app(encoder, None, ServeConfig(), name="tiny")
    with TestClient(app, base_url="http://localhost") as client:
        for size in (8, 16):
            whole, cut = encoder.encode(TEXTS), vectors(embed(client, TEXTS, dimensions=size))
            expected = whole[:, :size] / np.linalg.norm(whole[:, :size], axis=1, keepdims=True)
            np.testing.assert_allclose(cut, expected, atol=1e-5)
        error = rejected(embed(client, "a", dimensions=12), 400, param="dimensions")
        assert "8, 16, 32" in error["message"]


@pytest.mark.parametrize("name", ["gpt-4", "../../etc/passwd", "http://localhost/x", "", "a/b"])
def test_s5_s22_a_model_is_a_name_and_never_opened(client, name, monkeypatch):
    def opened(*_, **__):
        raise AssertionError("something was opened")

    monkeypatch.setattr("simcse.model.huggingface.locate", opened)
    monkeypatch.setattr("simcse.model.folder.locate", opened)
    error = rejected(client.post(EMBED, json={"input": "a", "model": name}), 404, param="model")
    assert error["code"] == "model_not_found"
    if name:
        rejected(client.get(f"/v1/models/{name}"), 404)


def test_x14_an_index_whose_server_is_away_is_503_and_comes_back(
    make_app_client, encoder, own_postgres
):
    index = create_index(own_postgres.new_index(), model_fingerprint(encoder, "tiny"))
    client = make_app_client(index, writable=True)
    rows = [{"id": "1", "text": "The dog runs.", "metadata": {"lang": "en"}}]
    assert client.post("/v1/index/add", json={"rows": rows}).json()["rows"] == 1
    own_postgres.kill()
    for path, body in (("search", {"query": "a dog"}), ("index/add", {"rows": rows})):
        response = client.post(f"/v1/{path}", json=body)
        rejected(response, 503)
        assert response.headers["Retry-After"] == "5"
        assert "postgres@" not in response.text
    assert client.get("/ready").status_code == 200  # embeddings are served
    own_postgres.start()
    found = client.post("/v1/search", json={"query": "a dog", "where": {"lang": "en"}}).json()
    assert [hit["id"] for hit in found["results"][0]] == ["1"]
    assert client.post("/v1/index/add", json={"rows": rows}).json()["updated"] == 1
    assert client.get("/v1/index").json()["fields"] == {"lang": ["en"]}
    assert len(client.get("/v1/index/map").json()["points"]) == 0  # of one row


def test_s13_a_rejection_waits_for_neither_model_nor_tokenizer(make_client, encoder, monkeypatch):
    client = make_client(**{"queue_tokens": 8})
    service = client.app.state.service
    go, entered = threading.Event(), threading.Event()

    def held(rows):
        entered.set()
        assert go.wait(WAIT)
        return np.ones((len(rows), 32), np.float32)

    monkeypatch.setattr(service.batcher, "embed", held)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        try:
            accepted = [pool.submit(embed, client, [5, 6])]
            assert entered.wait(WAIT)
            accepted.append(pool.submit(embed, client, [[5]] * 8))  # the queue is full now
            while not service.batcher._jobs:
                time.sleep(0.001)
            service._tokenizing.submit(go.wait, WAIT)
            # All of these come back while the model and the tokenizer are held up.
            error = rejected(response := embed(client, "a"), 429)
            assert error["code"] == "overloaded"
            assert int(response.headers["Retry-After"]) >= 1
            rejected(embed(client, [7]), 429)
            rejected(client.post("/v1/similarity", json={"first": ["a"]}), 429)
            rejected(client.post("/v1/search", json={"query": "a"}), 429)
            assert client.get("/health").status_code == 200
            assert client.get("/ready").status_code == 200
            assert not any(future.done() for future in accepted)
        finally:
            go.set()
        assert [future.result().status_code for future in accepted] == [200, 200]
    assert embed(client, "a").status_code == 200


def test_s6_token_ids_outside_the_vocabulary(client, encoder):
    beyond = encoder.backbone.model.get_input_embeddings().num_embeddings
    for given in ([beyond], [[1], [beyond]], [10**30]):
        rejected(embed(client, given), 400, param="input")
    assert embed(client, [beyond - 1]).status_code == 200


def test_s7_what_is_too_long_is_rejected_or_truncated_and_counted(client, encoder):
    long = "dog " * 100
    for given in (["a", long], [[5] * 33]):
        error = rejected(embed(client, given), 400, param="input")
        assert "33" in error["message"] or "102" in error["message"]
        assert "32" in error["message"]
    response = embed(client, ["a", long], truncate=True)
    assert response.headers["X-Truncated"] == "1"
    np.testing.assert_allclose(
        vectors(response), encoder.encode(["a", long], truncation="truncate"), atol=1e-5
    )
    assert "X-Truncated" not in embed(client, "a", truncate=True).headers
    assert "simcse_truncated_total 1.0" in client.get("/metrics").text


def test_s9_a_body_over_the_limit_is_413(make_client):
    client = make_client(body_bytes=1000)
    rejected(embed(client, "a" * 1000), 413)
    chunks = (b" " * 100 for _ in range(20))
    headers = {"Content-Type": "application/json"}
    rejected(client.post(EMBED, content=chunks, headers=headers), 413)
    packed = {**headers, "Content-Encoding": "gzip"}
    rejected(client.post(EMBED, content=b"\x1f\x8b", headers=packed), 415)


def test_s11_a_key_is_asked_for_before_anything_else(make_client):
    client = make_client(keys=(KEY, "second" * 4))
    for path in (EMBED, "/v1/search", "/v1/index/add"):
        for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": KEY + "x"}):
            response = client.post(path, content=b"{", headers=wrong)
            assert rejected(response, 401)["code"] == "invalid_api_key"
    for path in ("/openapi.json", "/metrics", "/v1/models", "/v1/index", "/v1/index/map", "/nope"):
        rejected(client.get(path), 401)
    for path in ("/health", "/ready", "/", "/page.js"):
        assert client.get(path).status_code == 200, path
    for key in (KEY, "second" * 4):
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).is_success


def test_keys_in_a_file_are_rotated_without_a_restart(make_client, tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"{KEY}\n")
    client = make_client(keys_file=str(path))

    def status(key):
        headers = {"Authorization": f"Bearer {key}"}
        return client.get("/v1/models", headers=headers).status_code

    assert (status(KEY), status("n" * 20)) == (200, 401)
    path.write_text(f"# both for a while\n{KEY}\n{'n' * 20}\n")
    assert (status(KEY), status("n" * 20)) == (200, 200)
    path.write_text("n" * 20)
    assert (status(KEY), status("n" * 20)) == (401, 200)
    path.unlink()
    assert (status(KEY), status("n" * 20)) == (401, 200)


def test_s12_another_method_or_type(client):
    rejected(client.get(EMBED), 405)
    rejected(client.put("/health"), 405)
    rejected(client.get("/nothing"), 404)
    body = json.dumps({"input": "a", "model": "tiny"})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        rejected(client.post(EMBED, content=body, headers={"Content-Type": kind}), 415)
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert client.post(EMBED, content=body, headers=headers).status_code == 200


def test_unknown_fields_are_rejected(client):
    rejected(embed(client, "a", dimension=3), 400, param="dimension")


def test_s19_a_forward_that_fails_is_500_with_an_id_and_the_next_works(client, monkeypatch):
    batcher = client.app.state.service.batcher
    whole = batcher.embed

    def failing(rows):
        raise RuntimeError("secret text")

    monkeypatch.setattr(batcher, "embed", failing)
    response = embed(client, "a")
    rejected(response, 500)
    assert "secret" not in response.text
    assert len(response.headers["x-request-id"]) == 16
    assert client.get("/ready").status_code == 503
    monkeypatch.setattr(batcher, "embed", whole)
    assert embed(client, "a").status_code == 200
    assert client.get("/ready").status_code == 200


def test_an_embedding_that_is_not_finite_is_never_sent(client, monkeypatch):
    monkeypatch.setattr(
        client.app.state.service.batcher, "embed", lambda rows: np.full((len(rows), 32), np.nan)
    )
    rejected(embed(client, "a"), 500)
    rejected(client.get("/ready"), 503)


def test_another_web_pages_name_for_this_machine_is_rejected(client):
    rejected(client.get("/v1/models", headers={"Host": "evil.example"}), 403)
    rejected(client.get("/v1/models", headers={"Host": "evil.example:8000"}), 403)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200


def test_similarity_is_the_cosine(client, encoder):
    embedded = encoder.encode(TEXTS[:3])
    expected = embedded[:2] @ embedded[1:].T
    response = client.post("/v1/similarity", json={"first": TEXTS[:2], "second": TEXTS[1:3]})
    np.testing.assert_allclose(response.json()["scores"], expected, atol=1e-5)
    alone = client.post("/v1/similarity", json={"first": TEXTS[:3]}).json()
    np.testing.assert_allclose(alone["scores"], embedded @ embedded.T, atol=1e-5)
    assert alone["usage"]["prompt_tokens"] == sum(map(len, encoder.tokenizer.ids(TEXTS[:3])))


def test_every_answer_carries_its_id_and_the_policy(client):
    for response in (client.get("/"), embed(client, "a"), client.get("/nothing")):
        assert len(response.headers["x-request-id"]) == 16
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"


def test_metrics_count(client):
    embed(client, TEXTS)
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'simcse_requests_total{code="200",route="/v1/embeddings"} 1.0' in text
    assert 'code="404"' in text
    client.post(EMBED, content=b"x")
    assert 'simcse_rejected_total{reason="type"} 1.0' in client.get("/metrics").text
    assert "simcse_inputs_total 4.0" in text
    assert 'simcse_batch_tokens_bucket{le="+Inf"} 1.0' in text
    assert 'simcse_model_info{fingerprint="' in text
    assert "simcse_queue_tokens 0.0" in text


def test_a_key_is_needed_where_others_can_reach_it(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org"):
        with pytest.raises(ConfigError, match="there is no API key"):
            ServeConfig(host=host)
        ServeConfig(host=host, keys=(KEY,))
    for host in ("127.0.0.1", "localhost", "::1"):
        ServeConfig(host=host)
    with pytest.raises(ConfigError, match="at least 16"):
        ServeConfig(keys=("short",))
    with pytest.raises(ConfigError, match="max_wait"):
        ServeConfig(max_wait=0)
    assert parse_keys("a, b\nc # d\n\n# e") == ("a", "b", "c")

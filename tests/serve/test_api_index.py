"""The HTTP API on an index, in this process: search, additions, and what is no index."""

import pytest

from simcse.errors import ArtifactError
from simcse.io.fingerprint import ModelFingerprint
from simcse.serve.app import create_app

from .conftest import TEXTS, embed, rejected


def test_search_gives_what_the_index_gives(client, index, encoder):
    body = {"query": "the dog", "k": 3, "where": {"n": {"gte": 1}}}
    (hits,) = client.post("/v1/search", json=body).json()["results"]
    assert {hit["id"] for hit in hits} == {"1", "2", "3"}
    assert hits[0]["metadata"] == {"n": int(hits[0]["id"]), "lang": "en"}
    many = client.post("/v1/search", json={"query": TEXTS, "k": 1}).json()["results"]
    assert [found[0]["id"] for found in many] == ["0", "1", "2", "3"]
    assert all(found[0]["score"] == pytest.approx(1) for found in many)
    high = client.post("/v1/search", json={"query": TEXTS[0], "threshold": 0.9999}).json()
    assert [hit["id"] for hit in high["results"][0]] == ["0"]


@pytest.mark.parametrize(
    "body",
    [
        {"query": ""},
        {"query": []},
        {"query": "a", "k": 0},  # X8
        {"query": "a", "k": 1001},
        {"query": "a", "k": True},
        {"query": "a", "threshold": 2},
        {"query": "a", "where": {"lnag": "en"}},
        {"query": "a", "where": {"n": {"like": 1}}},
        {"query": "a", "where": ["n"]},
        {},
    ],
)
def test_a_search_that_makes_no_sense_is_400(client, body):
    rejected(client.post("/v1/search", json=body), 400)


def test_rows_are_added_durably_and_found_at_once(client, index, make_client):
    rows = [{"text": "a new row", "id": 7, "metadata": {"lang": "de"}}, {"text": "no id"}]
    done = client.post("/v1/index/add", json={"rows": rows}).json()
    assert (done["added"], done["updated"], done["rows"]) == (2, 0, 6)
    assert client.post("/v1/index/add", json={"rows": rows}).json()["updated"] == 2
    (hits,) = client.post("/v1/search", json={"query": "a new row", "k": 1}).json()["results"]
    assert (hits[0]["id"], hits[0]["metadata"]) == ("7", {"lang": "de"})
    assert len(type(index).open(index.folder)) == 6
    for bad in ([{"text": " "}], [{"text": "a", "id": ""}], [], [{"txt": "a"}]):
        rejected(client.post("/v1/index/add", json={"rows": bad}), 400)
    rejected(make_client().post("/v1/index/add", json={"rows": rows}), 403)


def test_without_an_index_there_is_nothing_to_search(make_client):
    client = make_client(with_index=False)
    rejected(client.post("/v1/search", json={"query": "a"}), 404)
    rejected(client.get("/v1/index"), 404)
    rejected(client.get("/v1/index/map"), 404)
    assert embed(client, "a").status_code == 200


def test_what_another_process_commits_is_found(client, index, encoder):
    from simcse.io.rows import IndexRow

    other = type(index).open(index.folder)
    other.add([IndexRow("77", "elsewhere")], encoder.encode(["elsewhere"]))
    other.commit()
    client.app.state.service._refreshed_at = 0.0
    (hits,) = client.post("/v1/search", json={"query": "elsewhere", "k": 1}).json()["results"]
    assert hits[0]["id"] == "77"


def test_the_index_and_its_map_are_described(client):
    facts = client.get("/v1/index").json()
    assert (facts["rows"], facts["index_type"], facts["recall"]) == (4, "exact", None)
    assert facts["fields"] == {"n": [0, 1, 2, 3], "lang": ["en"]}
    drawn = client.get("/v1/index/map").json()
    assert {point["text"] for point in drawn["points"]} == set(TEXTS)
    assert max(abs(point[axis]) for point in drawn["points"] for axis in "xy") == pytest.approx(1)
    assert 0 < drawn["explained"] <= 1
    assert client.get("/v1/alignment-uniformity").json() == {"models": []}


def test_x6_an_index_of_another_model_is_not_served(encoder, index):
    index._view.fingerprint = ModelFingerprint("other", "0" * 64, 32)
    with pytest.raises(ArtifactError, match="was made by the model 'other'"):
        create_app(encoder, index)

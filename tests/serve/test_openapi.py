"""The OpenAPI document and the server agree on what is accepted and what is rejected."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .conftest import KEY

schemathesis = pytest.importorskip("schemathesis")
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
READ = [
    "/v1/models",
    "/v1/models/{model_id}",
    "/v1/index",
    "/v1/index/map",
    "/v1/alignment-uniformity",
]
OPERATE = ["/health", "/ready", "/metrics"]
ASK = ["/v1/embeddings", "/v1/similarity", "/v1/search", "/v1/index/add"]
# What no document can say: ids the model knows, fields the rows have, lengths in tokens and bytes.
UNSAID = (
    *(
        "token ids must",
        "this model's embeddings have dimensions",
        "no row has a metadata field",
        "tokens, the limit is",
    ),
    *("pairs are compared at once", "an id of 1 to 512 bytes"),
    *("more than 64 bits", "nested more than"),
)


@pytest.fixture
def document(make_client):
    """The document of a server with an index that takes rows and asks for a key."""
    client = make_client(writable=True, keys=(KEY,))
    return schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=AUTHORIZED)


def try_out(document, method, path, mode, *, examples):
    wanted = schemathesis.GenerationMode[mode]
    taken = 0

    @settings(
        max_examples=examples,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=document[path][method].as_strategy(generation_mode=wanted))
    def check(case):
        nonlocal taken
        if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
            case.body["model"] = "tiny"
        response = case.call(headers=AUTHORIZED)
        taken += response.status_code == 200
        said = response.status_code == 400 and response.json()["error"]["message"]
        if said and any(part in said for part in UNSAID):
            return
        case.validate_response(response, headers=AUTHORIZED)

    check()
    return taken


def test_every_operation_is_tried(document):
    found = [operation.ok() for operation in document.get_all_operations()]
    tried = [("GET", path) for path in READ + OPERATE] + [("POST", path) for path in ASK]
    assert {(one.method.upper(), one.path) for one in found} == set(tried)


def test_what_is_only_read(document):
    for path in READ + OPERATE:
        try_out(document, "GET", path, "POSITIVE", examples=5)


@pytest.mark.parametrize("path", ASK)
def test_what_the_document_allows_is_accepted(document, path):
    assert try_out(document, "POST", path, "POSITIVE", examples=15)


@pytest.mark.parametrize("path", ASK)
def test_what_the_document_forbids_is_rejected(document, path):
    assert not try_out(document, "POST", path, "NEGATIVE", examples=15)

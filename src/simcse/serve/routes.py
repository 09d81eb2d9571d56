"""The routes: OpenAI's embeddings and models, similarity, search, the page, operation."""

import asyncio
import base64
from collections.abc import Coroutine, Sequence
from dataclasses import asdict, replace
from importlib import resources
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from simcse.errors import UsageError
from simcse.io.rows import make_row
from simcse.serve import page_data, schemas
from simcse.serve.errors import ApiError
from simcse.serve.service import Embedded, Service

T = TypeVar("T")
MAX_PAIRS = 1 << 18  # compared at once
PAGE_FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "plots.js": ("plots.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody}
    for status in (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
}


def add_embedding_routes(app: FastAPI, service: Service) -> None:
    """Add `/v1/models`, `/v1/embeddings` and `/v1/similarity`."""
    options: dict[str, Any] = {"tags": ["embeddings"], "responses": ERRORS}
    encoder = service.encoder
    model = schemas.Model(
        id=service.name,
        created=service.created,
        owned_by="simcse",
        dimensions=encoder.dimensions,
        max_tokens=encoder.tokenizer.max_length,
        fingerprint=service.fingerprint.sha256,
    )

    @app.get("/v1/models", response_model=schemas.ModelList, **options)
    async def models() -> schemas.ModelList:
        """List the models of this server; there is one."""
        return schemas.ModelList(data=[model])

    @app.get("/v1/models/{model_id:path}", response_model=schemas.Model, **options)
    async def one_model(model_id: str) -> schemas.Model:
        """Describe a model."""
        _check_model(service, model_id)
        return model

    @app.post("/v1/embeddings", response_model=schemas.EmbeddingResponse, **options)
    async def embeddings(body: schemas.EmbeddingRequest, request: Request) -> Response:
        """Embed texts or token ids, as OpenAI's API does; unit length if the model says so."""
        _check_model(service, body.model)
        try:
            encoder.validate_dim(body.dimensions)
        except UsageError as error:
            raise ApiError(400, str(error), param="dimensions") from error
        embedded = await _unless_disconnected(request, _embed_input(service, body))
        embedded = replace(
            embedded, vectors=encoder.truncate_dim(embedded.vectors, body.dimensions)
        )
        return _embedding_response(embedded, service.name, body.encoding_format)

    @app.post("/v1/similarity", response_model=schemas.SimilarityResponse, **options)
    async def similarity(body: schemas.SimilarityRequest, request: Request) -> Response:
        """Compare texts: the cosine of each of ``first`` with each of ``second``."""
        second = body.first if body.second is None else body.second
        if len(body.first) * len(second) > MAX_PAIRS:
            raise ApiError(400, f"at most {MAX_PAIRS:,} pairs are compared at once", param="second")
        texts = list(dict.fromkeys([*body.first, *second]))
        work = service.embed(texts, truncate=body.truncate, param="first")
        embedded = await _unless_disconnected(request, work)
        lengths = np.linalg.norm(embedded.vectors, axis=1, keepdims=True)
        units = dict(zip(texts, embedded.vectors / np.maximum(lengths, 1e-12), strict=True))
        left = np.stack([units[text] for text in body.first])
        right = np.stack([units[text] for text in second])
        return _json({"scores": np.clip(left @ right.T, -1, 1)}, embedded)


def add_index_routes(app: FastAPI, service: Service) -> None:
    """Add `/v1/search` and `/v1/index`."""
    options: dict[str, Any] = {"tags": ["index"], "responses": ERRORS}

    @app.post("/v1/search", response_model=schemas.SearchResponse, **options)
    async def search(body: schemas.SearchRequest, request: Request) -> Response:
        """Find the nearest rows of the index by cosine, exactly unless it was built otherwise."""
        index = service.require_index()
        texts = [body.query] if isinstance(body.query, str) else body.query

        async def work() -> Response:
            embedded = await service.embed(texts, truncate=body.truncate, param="query")
            hits = await service.search(embedded, body.k, body.threshold, body.where)
            describe = service.describe_score()
            results = [[{**asdict(hit), **describe(hit.score)} for hit in each] for each in hits]
            return _json({"results": results, "generation": index.metadata.version}, embedded)

        return await _unless_disconnected(request, work())

    @app.post("/v1/index/add", response_model=schemas.AddResponse, **options)
    async def add(body: schemas.AddRequest) -> Response:
        """Add rows, durably before the answer; a row replaces the one with the same id."""
        index = service.require_index()
        rows = [make_row(row.text, row.id, row.metadata) for row in body.rows]
        texts = [row.text for row in rows]
        embedded = await service.embed(texts, truncate=body.truncate, param="rows")
        done = await service.add(rows, embedded)
        answer = {"added": done.added, "updated": done.updated, "rows": len(index)}
        return _json({**answer, "generation": index.metadata.version}, embedded, with_usage=False)

    @app.get("/v1/index", response_model=schemas.IndexInfo, **options)
    async def info() -> schemas.IndexInfo:
        """Describe the index: its rows, how it searches, the fields to filter on."""
        index = service.require_index()
        approximation = index.metadata.approximation
        return schemas.IndexInfo(
            rows=len(index),
            generation=index.metadata.version,
            index_type=index.metadata.index_type,
            recall=approximation.recall if approximation else None,
            fields=page_data.field_values(index),
            calibrated=index.metadata.calibration is not None,
            writable=service.settings.writable,
        )


def add_page_routes(app: FastAPI, service: Service, models: list[dict[str, Any]]) -> None:
    """Add the page, and the data that it draws."""
    options: dict[str, Any] = {"tags": ["page"], "responses": ERRORS}
    maps: dict[int, dict[str, Any]] = {}  # of one version of the index

    @app.get("/v1/index/map", response_model=schemas.IndexMap, **options)
    async def index_map() -> JSONResponse:
        """Project the rows, or a random sample of them, onto a plane."""
        index = service.require_index()
        version = index.metadata.version
        if version not in maps:
            drawn = await asyncio.to_thread(page_data.index_map, index)
            maps.clear()
            maps[version] = drawn
        return JSONResponse(maps[version])

    @app.get("/v1/alignment-uniformity", response_model=schemas.AlignmentUniformity, **options)
    async def alignment_uniformity() -> JSONResponse:
        """List evaluated models with their alignment and uniformity (``--results``)."""
        return JSONResponse({"models": models})

    def add_file(path: str, file: str, media_type: str) -> None:
        content = (resources.files("simcse.serve") / "page" / file).read_bytes()

        async def page() -> Response:
            headers = {"Cache-Control": "no-cache"}
            return Response(content, media_type=media_type, headers=headers)

        app.add_api_route(f"/{path}", page, include_in_schema=False)

    for path, (file, media_type) in PAGE_FILES.items():
        add_file(path, file, media_type)


def add_operation_routes(app: FastAPI, service: Service) -> None:
    """Add `/health`, `/ready` and `/metrics`."""
    errors = {status: ERRORS[status] for status in (500, 503)}
    options: dict[str, Any] = {"tags": ["operation"], "responses": errors}
    keyed = {**options, "responses": {**errors, 401: ERRORS[401]}}

    @app.get("/health", response_model=schemas.State, **options)
    async def health() -> schemas.State:
        """Report that the process answers."""
        return schemas.State(status="ok")

    @app.get("/ready", response_model=schemas.State, **options)
    async def ready() -> schemas.State:
        """Report whether to send requests here; embeds a sentence whose vector is known."""
        problem = await service.problem()
        if problem is not None:
            raise ApiError(503, problem, code="not_ready", headers={"Retry-After": "1"})
        return schemas.State(status="ready")

    @app.get("/metrics", response_class=PlainTextResponse, **keyed)
    async def metrics() -> PlainTextResponse:
        """Return counters and histograms in Prometheus' text format."""
        return PlainTextResponse(service.metrics.text())


async def _embed_input(service: Service, body: schemas.EmbeddingRequest) -> Embedded:
    inputs: Any = body.input if isinstance(body.input, list) else [body.input]
    if isinstance(inputs[0], int):
        inputs = [inputs]
    if isinstance(inputs[0], list):
        return await service.embed_ids(inputs, truncate=body.truncate)
    return await service.embed(inputs, truncate=body.truncate)


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but cancel it when the client disconnects."""
    task = asyncio.ensure_future(work)
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        if is_gone:
            raise ApiError(499, "the client disconnected") from None
        raise
    finally:
        watching.cancel()


def _check_model(service: Service, name: str) -> None:
    if name != service.name:
        message = f"there is no model {name[:200]!r}; this server has {service.name!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


def _embedding_response(embedded: Embedded, name: str, encoding: str) -> Response:
    vectors: Sequence[Any] = list(embedded.vectors)
    if encoding == "base64":
        vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    data = [
        {"object": "embedding", "index": at, "embedding": vector}
        for at, vector in enumerate(vectors)
    ]
    return _json({"object": "list", "data": data, "model": name}, embedded)


def _json(answer: dict[str, Any], embedded: Embedded, *, with_usage: bool = True) -> Response:
    """Return JSON without validation; a header counts the truncated inputs."""
    if with_usage:
        answer["usage"] = {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}
    headers = {"X-Truncated": str(embedded.truncated)} if embedded.truncated else None
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json", headers=headers)

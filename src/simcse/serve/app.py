"""The routes: OpenAI's embeddings and models, similarity, search, the page and its data."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import FastAPI, Request, Response
from starlette.responses import JSONResponse, PlainTextResponse

import simcse
from simcse.errors import UsageError
from simcse.index.protocol import VectorIndex
from simcse.io.rows import make_row
from simcse.model.encoder import SentenceEncoder
from simcse.serve import errors, schemas, views
from simcse.serve.errors import ApiError
from simcse.serve.gate import Gate
from simcse.serve.requests import StrictRoute
from simcse.serve.service import Embedded, Service
from simcse.serve.settings import ServeConfig

T = TypeVar("T")
PAGE = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "plots.js": ("plots.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorBody}
    for status in (400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504)
}


def create_app(
    encoder: SentenceEncoder,
    index: VectorIndex | None = None,
    settings: ServeConfig | None = None,
    *,
    name: str = "mini",
    results: Sequence[Path] = (),
) -> FastAPI:
    """Make the application; it owns the encoder from now on.

    Args:
        encoder: the model to serve.
        index: searched by `/v1/search`.
        settings: limits and keys.
        name: what the model is called over HTTP.
        results: files or folders of `simcse evaluate --output`, for the page.

    Raises:
        ArtifactError: the index was built with another model, or results cannot be read.
    """
    settings = settings or ServeConfig()
    service = Service(encoder, index, settings, name=name)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="simcse",
        version=simcse.__version__,
        docs_url=None,  # FastAPI's page loads its scripts from elsewhere; ours shows the routes
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.router.route_class = StrictRoute
    _add_embedding_routes(app, service)
    _add_index_routes(app, service)
    _add_view_routes(app, service, views.evaluated_models(results))
    _add_operation_routes(app, service)
    _add_page(app)
    errors.install(app)
    # Outside of what FastAPI puts around an application, so that a refusal costs next to nothing.
    app.state.gate = app.middleware_stack = Gate(
        app.build_middleware_stack(),
        settings=settings,
        metrics=service.metrics,
        draining=lambda: service.draining,
        overload=service.overload,
    )
    return app


def _add_embedding_routes(app: FastAPI, service: Service) -> None:
    told: dict[str, Any] = {"tags": ["embeddings"], "responses": FAILURES}
    encoder = service.encoder
    model = schemas.Model(
        id=service.name,
        created=service.created,
        owned_by="simcse",
        dimensions=encoder.dimensions,
        max_tokens=encoder.tokenizer.max_length,
        fingerprint=service.fingerprint.sha256,
    )

    @app.get("/v1/models", response_model=schemas.ModelList, **told)
    async def models() -> schemas.ModelList:
        """List the models of this server; there is one."""
        return schemas.ModelList(data=[model])

    @app.get("/v1/models/{model_id:path}", response_model=schemas.Model, **told)
    async def one_model(model_id: str) -> schemas.Model:
        """Describe a model."""
        _check_model(service, model_id)
        return model

    @app.post("/v1/embeddings", response_model=schemas.EmbeddingResponse, **told)
    async def embeddings(body: schemas.EmbeddingRequest, request: Request) -> Response:
        """Embed texts or token ids, as OpenAI's API does; unit length if the model says so."""
        _check_model(service, body.model)
        try:
            encoder.check_size(body.dimensions)
        except UsageError as error:
            raise ApiError(400, str(error), param="dimensions") from error
        embedded = await _unless_gone(request, _embed_input(service, body))
        embedded = replace(embedded, vectors=encoder.cut(embedded.vectors, body.dimensions))
        return _embedding_response(embedded, service.name, body.encoding_format)

    @app.post("/v1/similarity", response_model=schemas.SimilarityResponse, **told)
    async def similarity(body: schemas.SimilarityRequest, request: Request) -> Response:
        """Compare texts: the cosine of each of ``first`` with each of ``second``."""
        second = body.first if body.second is None else body.second
        texts = list(dict.fromkeys([*body.first, *second]))
        if len(body.first) * len(second) > schemas.MAX_INPUTS * 128:
            raise ApiError(400, "at most 262,144 pairs are compared at once", param="second")
        work = service.embed(texts, truncate=body.truncate, param="first")
        embedded = await _unless_gone(request, work)
        lengths = np.linalg.norm(embedded.vectors, axis=1, keepdims=True)
        units = dict(zip(texts, embedded.vectors / np.maximum(lengths, 1e-12), strict=True))
        left = np.stack([units[text] for text in body.first])
        right = np.stack([units[text] for text in second])
        scores = np.clip(left @ right.T, -1, 1)
        return _json({"scores": scores.tolist(), "usage": _usage(embedded)}, embedded)


def _add_index_routes(app: FastAPI, service: Service) -> None:
    told: dict[str, Any] = {"tags": ["index"], "responses": FAILURES}

    @app.post("/v1/search", response_model=schemas.SearchResponse, **told)
    async def search(body: schemas.SearchRequest, request: Request) -> Response:
        """Find the nearest rows of the index by cosine; none is left out unasked."""
        index = service.require_index()
        texts = [body.query] if isinstance(body.query, str) else body.query

        async def work() -> Response:
            embedded = await service.embed(texts, truncate=body.truncate, param="query")
            found = await service.search(embedded, body.k, body.threshold, body.where)
            meaning = service.calibration(index)
            results = [[{**asdict(hit), **meaning(hit.score)} for hit in hits] for hits in found]
            number = index.metadata.version
            answer = {"results": results, "generation": number, "usage": _usage(embedded)}
            return _json(answer, embedded)

        return await _unless_gone(request, work())

    @app.post("/v1/index/add", response_model=schemas.AddResponse, **told)
    async def add(body: schemas.AddRequest) -> Response:
        """Add rows, durably before the answer; a row replaces the one of the same id."""
        index = service.require_index()
        rows = [make_row(row.text, row.id, row.metadata) for row in body.rows]
        texts = [row.text for row in rows]
        embedded = await service.embed(texts, truncate=body.truncate, param="rows")
        done = await service.add(rows, embedded)
        answer = {"added": done.added, "updated": done.updated, "rows": len(index)}
        return _json({**answer, "generation": index.metadata.version}, embedded)

    @app.get("/v1/index", response_model=schemas.IndexInfo, **told)
    async def info() -> schemas.IndexInfo:
        """Describe the index: its rows, how it searches, the fields to filter on."""
        index = service.require_index()
        metadata = index.metadata
        return schemas.IndexInfo(
            rows=len(index),
            generation=metadata.version,
            kind=metadata.index_type,
            recall=metadata.approximation.recall if metadata.approximation else None,
            fields=views.field_values(index),
            calibrated=metadata.calibration is not None,
            writable=service.settings.writable,
        )


def _add_view_routes(app: FastAPI, service: Service, models: list[dict[str, Any]]) -> None:
    told: dict[str, Any] = {"tags": ["views"], "responses": FAILURES}
    drawn: dict[int, dict[str, Any]] = {}  # the map of one generation

    @app.get("/v1/index/map", response_model=schemas.IndexMap, **told)
    async def index_map() -> JSONResponse:
        """Project the rows, or an even sample of them, onto a plane."""
        index = service.require_index()
        number = index.metadata.version
        if number not in drawn:
            found = await asyncio.to_thread(views.index_map, index)
            drawn.clear()
            drawn[number] = found
        return JSONResponse(drawn[number])

    @app.get("/v1/models-plane", response_model=schemas.Plane, **told)
    async def plane() -> JSONResponse:
        """Place evaluated models by alignment and uniformity (``--results``)."""
        return JSONResponse({"models": models})


def _add_operation_routes(app: FastAPI, service: Service) -> None:
    failures = {status: FAILURES[status] for status in (500, 503)}
    told: dict[str, Any] = {"tags": ["operation"], "responses": failures}

    @app.get("/health", response_model=schemas.State, **told)
    async def health() -> schemas.State:
        """Say that the process answers."""
        return schemas.State(status="ok")

    @app.get("/ready", response_model=schemas.State, **told)
    async def ready() -> schemas.State:
        """Say whether requests should be sent here; embeds a sentence whose vector is known."""
        problem = await service.problem()
        if problem is not None:
            raise ApiError(503, problem, code="not_ready", headers={"Retry-After": "1"})
        return schemas.State(status="ready")

    keyed = {**told, "responses": {**failures, 401: FAILURES[401]}}

    @app.get("/metrics", response_class=PlainTextResponse, **keyed)
    async def metrics() -> str:
        """Return counters and histograms as Prometheus reads them."""
        return service.metrics.text()


def _add_page(app: FastAPI) -> None:
    folder = resources.files("simcse.serve") / "page"

    def add(path: str, file: str, kind: str) -> None:
        content = (folder / file).read_bytes()

        async def page() -> Response:
            return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

        app.add_api_route(f"/{path}", page, include_in_schema=False)

    for path, (file, kind) in PAGE.items():
        add(path, file, kind)


async def _embed_input(service: Service, body: schemas.EmbeddingRequest) -> Embedded:
    given: Any = body.input if isinstance(body.input, list) else [body.input]
    if isinstance(given[0], int):
        given = [given]
    if isinstance(given[0], list):
        return await service.embed_ids(given, truncate=body.truncate)
    return await service.embed(given, truncate=body.truncate)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await ``work``, but give it up when the client hangs up."""
    waiting, is_gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        if waiting:  # always: only a task can await
            waiting.cancel()

    watching = asyncio.ensure_future(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone:
            raise ApiError(499, "the client hung up") from None
        raise
    finally:
        watching.cancel()


def _check_model(service: Service, name: str) -> None:
    if name != service.name:
        message = f"no model {name[:200]!r} here; this server has {service.name!r}"
        raise ApiError(404, message, param="model", code="model_not_found")


def _embedding_response(embedded: Embedded, name: str, encoding: str) -> Response:
    rows: Sequence[Any]
    if encoding == "base64":
        rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in embedded.vectors]
    else:
        rows = list(embedded.vectors)
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    answer = {"object": "list", "data": data, "model": name, "usage": _usage(embedded)}
    return _json(answer, embedded)


def _usage(embedded: Embedded) -> dict[str, int]:
    return {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens}


def _json(answer: dict[str, Any], embedded: Embedded) -> Response:
    """Return JSON as it is; the header counts inputs that were cut."""
    headers = {"X-Truncated": str(embedded.truncated)} if embedded.truncated else None
    content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(content, media_type="application/json", headers=headers)

"""The application: one service, the routes on it, and admission around them."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from fastapi import FastAPI

import simcse
from simcse.index.protocol import VectorIndex
from simcse.model.encoder import SentenceEncoder
from simcse.serve import errors, page_data, routes
from simcse.serve.admission import AdmissionMiddleware
from simcse.serve.requests import StrictRoute
from simcse.serve.service import Service
from simcse.serve.settings import ServeConfig


def create_app(
    encoder: SentenceEncoder,
    index: VectorIndex | None = None,
    settings: ServeConfig | None = None,
    *,
    name: str = "mini",
    results: Sequence[Path] = (),
) -> FastAPI:
    """Create the ASGI application; any ASGI server can run it.

    Args:
        encoder: model to serve; the application owns it from now on.
        index: index that `/v1/search` searches.
        settings: limits and keys.
        name: name of the model over HTTP.
        results: files or folders of `simcse evaluate --output`, for the page.

    Raises:
        ArtifactError: the index was built with another model, or results cannot be read.

    Example:
        >>> app = create_app(SentenceEncoder.load("mini"))  # doctest: +SKIP
    """
    service = Service(encoder, index, settings or ServeConfig(), name)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="simcse",
        version=simcse.__version__,
        docs_url=None,  # FastAPI's page loads its scripts from other hosts; ours shows the routes
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.router.route_class = StrictRoute
    routes.add_embedding_routes(app, service)
    routes.add_index_routes(app, service)
    routes.add_page_routes(app, service, page_data.evaluated_models(results))
    routes.add_operation_routes(app, service)
    errors.install(app)
    app.add_middleware(AdmissionMiddleware, service=service)
    return app

"""Strict JSON: `json.loads` accepts values that no other parser should."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from simcse.serve.errors import ApiError


class StrictRequest(Request):
    """A request whose JSON has no NaN, no unpaired surrogates, no endless nesting, and is UTF-8."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Parse the body; 400 if it is not JSON text."""
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise ApiError(400, f"the body is not JSON text: {error}") from None


class StrictRoute(APIRoute):
    """A route whose requests are `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's own handler."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict

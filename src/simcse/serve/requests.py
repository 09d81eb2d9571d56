"""Strict JSON: `json.loads` accepts values that no other parser should."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from simcse.serve.errors import ApiError


def parse_json(body: bytes) -> Any:  # noqa: ANN401 - any JSON value
    """Parse a body; reject NaN, lone surrogates, other encodings, and endless nesting.

    Raises:
        ApiError: 400.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_reject)
        if b"\\u" in body:  # only an escape can hold half a surrogate pair
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        problem = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise ApiError(400, f"the body is not JSON text: {problem}") from None
    return value


def _reject(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class StrictRequest(Request):
    """A request whose body is parsed by `parse_json`."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """Return the body's value."""
        return parse_json(await self.body())


class StrictRoute(APIRoute):
    """A route whose requests are `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's own handler."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict

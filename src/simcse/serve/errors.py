"""Every failure as OpenAI's error body, whatever raised it."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from simcse.errors import ArtifactError, NumericError, ResourceError, SimcseError
from simcse.serve.batching import Overloaded

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class ApiError(HTTPException):
    """A failure with the fields of OpenAI's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return ``{"error": {"message", "type", "param", "code"}}``."""
        kind = "server_error" if self.status_code >= 500 else TYPES[400]
        return {
            "error": {
                "message": self.detail,
                "type": TYPES.get(self.status_code, kind),
                "param": self.param,
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        """Return the whole response."""
        return JSONResponse(self.body(), self.status_code, self.headers)

    def sent(self, *headers: tuple[bytes, bytes]) -> bytes:
        """Return the whole response, with these headers too, as a connection sends it."""
        response, reason = self.response(), HTTPStatus(self.status_code).phrase
        lines = [b"HTTP/1.1 %d %s" % (self.status_code, reason.encode())]
        lines += [b"%s: %s" % pair for pair in (*response.raw_headers, *headers)]
        return b"\r\n".join([*lines, b"", response.body])


def to_api_error(error: Exception) -> ApiError:
    """Say what a failure of the library is over HTTP."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        headers = dict(error.headers) if error.headers else None
        return ApiError(error.status_code, str(error.detail or phrase), headers=headers)
    if isinstance(error, Overloaded):
        wait = {"Retry-After": f"{error.seconds:.0f}"}
        return ApiError(429, str(error), code="overloaded", headers=wait)
    if isinstance(error, TimeoutError):
        return ApiError(504, "the deadline passed while the request waited", code="deadline")
    if isinstance(error, ResourceError):
        return ApiError(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, SimcseError) and not isinstance(error, ArtifactError | NumericError):
        return ApiError(400, str(error))
    return ApiError(500, "internal error", code=type(error).__name__)


def internal_error(request_id: str) -> ApiError:
    """Return what is said of a mistake of ours."""
    return ApiError(500, f"internal error, request {request_id}", code="internal")


def from_validation(error: RequestValidationError) -> ApiError:
    """Name the field that is wrong; what was sent is not repeated."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"] if part != "body"]
    param = next((part for part in where if part.isidentifier()), None)
    return ApiError(400, f"{'.'.join(where) or 'body'}: {first['msg']}", param=param)


def install(app: FastAPI) -> None:
    """Have every failure answered in one form."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            return from_validation(error).response()
        return to_api_error(error).response()

    async def internal(request: Request, _error: Exception) -> JSONResponse:
        return internal_error(request.state.request_id).response()

    app.add_exception_handler(Exception, internal)
    for kind in (HTTPException, RequestValidationError, SimcseError, TimeoutError):
        app.add_exception_handler(kind, answer)

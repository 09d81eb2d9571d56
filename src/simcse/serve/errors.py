"""Every failure as OpenAI's error body, whatever raised it."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from simcse.errors import ArtifactError, NumericError, ResourceError, SimcseError
from simcse.serve.batching import Overloaded

ERROR_TYPES = {
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

    def response(self) -> JSONResponse:
        """Return the response with the body ``{"error": {"message", "type", "param", "code"}}``."""
        default = "server_error" if self.status_code >= 500 else "invalid_request_error"
        error = {
            "message": self.detail,
            "type": ERROR_TYPES.get(self.status_code, default),
            "param": self.param,
            "code": self.code,
        }
        return JSONResponse({"error": error}, self.status_code, self.headers)


def to_api_error(error: Exception) -> ApiError:
    """Translate a failure of the library into one of the HTTP API."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        message = str(error.detail or HTTPStatus(error.status_code).phrase)
        headers = dict(error.headers) if error.headers else None
        return ApiError(error.status_code, message, headers=headers)
    if isinstance(error, Overloaded):
        headers = {"Retry-After": f"{error.seconds:.0f}"}
        return ApiError(429, str(error), code="overloaded", headers=headers)
    if isinstance(error, TimeoutError):
        return ApiError(504, "the deadline passed while the request waited", code="deadline")
    if isinstance(error, ResourceError):
        return ApiError(503, str(error), headers={"Retry-After": "5"})
    if isinstance(error, SimcseError) and not isinstance(error, ArtifactError | NumericError):
        return ApiError(400, str(error))
    return ApiError(500, "internal error", code=type(error).__name__)


def _from_validation(error: RequestValidationError) -> ApiError:
    """Name the field that is wrong, without repeating what was sent."""
    first = error.errors()[0]
    where = [str(name) for name in first["loc"] if name != "body"]
    param = next((name for name in where if name.isidentifier()), None)
    return ApiError(400, f"{'.'.join(where) or 'body'}: {first['msg']}", param=param)


def install(app: FastAPI) -> None:
    """Answer every failure that a route raises on purpose in the same form."""

    async def answer(_request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, RequestValidationError):
            return _from_validation(error).response()
        return to_api_error(error).response()

    for error_class in (HTTPException, RequestValidationError, SimcseError, TimeoutError):
        app.add_exception_handler(error_class, answer)

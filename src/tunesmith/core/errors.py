"""Errors a client can see: each is declared once here with its status and OpenAI code, and rendered once by the API.

Raise them from any floor. To add one, subclass `ApiError` and write the message a user needs: the field, the value, the
way out. Errors that never reach a client do not belong here.
"""

from collections.abc import Mapping
from typing import ClassVar


class ApiError(Exception):
    """An error with an HTTP status and the four keys of OpenAI's error object."""

    status: ClassVar[int] = 400
    type: ClassVar[str] = "invalid_request_error"
    code: ClassVar[str | None] = None
    param: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_param = param if param is not None else self.param
        self.error_code = code if code is not None else self.code

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the response body in OpenAI's shape, all four keys present."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.error_param,
                "code": self.error_code,
            }
        }


class InvalidRequest(ApiError):
    """The request cannot be served as it is (400)."""


class NotAvailable(ApiError):
    """The contract has it, this release does not yet (400 `not_available`)."""

    code = "not_available"


class StateConflict(ApiError):
    """The object's state forbids the call (400: the SDKs retry a 409)."""


class StillRunning(ApiError):
    """The same request is still being executed (409, which every SDK sends again)."""

    status = 409
    code = "request_in_progress"


class NotFound(ApiError):
    """No such object in this scope (404)."""

    status = 404


class FileNotFound(NotFound):
    """No such file object (404)."""

    param = "id"

    def __init__(self, file_id: str) -> None:
        super().__init__(f"No such File object: {file_id}")


class JobNotFound(NotFound):
    """No such fine-tuning job (404 `fine_tune_not_found`)."""

    param = "fine_tune_id"
    code = "fine_tune_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Could not find fine tune: {job_id}")


class ModelNotFound(NotFound):
    """No such model (404 `model_not_found`)."""

    param = "model"
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model '{model}' does not exist")


class Unauthorized(ApiError):
    """It is not known who calls, or not for which project (401)."""

    status = 401


class Forbidden(ApiError):
    """The caller may not do this (403)."""

    status = 403


class TooLarge(ApiError):
    """The body is larger than the limit (413)."""

    status = 413


class HeadTooLarge(ApiError):
    """The request's line and headers are larger than the limit (431)."""

    status = 431


class RequestTimeout(ApiError):
    """The request did not come in time (408, which every SDK sends again)."""

    status = 408


class BadGateway(ApiError):
    """A server that this one had to ask answers what is of no use (502)."""

    status = 502
    type = "server_error"


class Unavailable(ApiError):
    """The server cannot serve this now; trying again may help (503)."""

    status = 503
    type = "server_error"


class RateLimited(Unavailable):
    """Too much is asked for at once (429, which every SDK sends again, after the seconds of `Retry-After` if any)."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Take how long to wait, and what else the answer's headers tell of it."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})


class TokensLimited(RateLimited):
    """Too many tokens are asked for in a minute (429)."""

    type = "tokens"


class RequestTooLarge(RateLimited):
    """One request asks for more than a minute's worth, so that waiting is no use (429, which is not to be sent again)."""

    def __init__(self, message: str, *, kind: str, headers: Mapping[str, str]) -> None:
        super().__init__(message, headers={**headers, "x-should-retry": "false"})
        self.kind = kind

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the body, of the type whose limit it is over."""
        return {"error": {**super().body()["error"], "type": self.kind}}


class OverQuota(ApiError):
    """The project has as much as it may (429, which is not to be sent again: something has to be done first)."""

    status = 429
    type = "insufficient_quota"


class InternalError(ApiError):
    """A fault of the server (500); its details are in the log under the request id."""

    status = 500
    type = "server_error"


class StorageFull(ApiError):
    """The disk that holds the data folder is full (507; the SDKs are told not to retry)."""

    status = 507
    type = "server_error"
    code = "storage_full"

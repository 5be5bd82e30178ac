"""What can go wrong between the page and the service, one class for each thing a person would do about it.

    BackendError
    ├── BackendUnreachableError   nothing listens at the address: start it, or correct BACKEND_URL
    ├── BackendSilentError        it listens and does not answer in time: wait, look at its health
    ├── BadRequestError           400, 413, 422: a field has a value the service refuses
    ├── NotAuthorizedError        401, 403: BACKEND_API_KEY is missing or wrong
    ├── TooBusyError              429, 503: try again in a moment
    ├── ChatModelDownError        502: the chat endpoint behind the service is down
    ├── ChatModelSlowError        504: the chat endpoint behind the service is too slow
    ├── AnswerBrokenError         the answer ended in its middle
    ├── UnreadableAnswerError     something answered that is not this service (or of another version)
    └── BackendFailedError        any other status: a fault in the service, found in its log by the request id

Words for people are in `problems`, in the page's language; these carry what happened and nothing secret.
"""

from __future__ import annotations

from pydantic import ValidationError

from frontend.wire import ErrorBody, ErrorEnvelope


class BackendError(Exception):
    """The base. `said` is the service's own sentence (may be empty), `request_id` finds it in the log."""

    def __init__(
        self,
        said: str = "",
        *,
        status: int | None = None,
        param: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{type(self).__name__}(status={status}, param={param}, request_id={request_id})")
        self.said = said
        self.status = status
        self.param = param
        self.request_id = request_id


class BackendUnreachableError(BackendError):
    """No connection could be made."""


class BackendSilentError(BackendError):
    """A connection was made and no answer came in time."""


class BadRequestError(BackendError):
    """The service refused a value; `param` names the field when the service said so."""


class NotAuthorizedError(BackendError):
    """The service wants a key, or another one."""


class TooBusyError(BackendError):
    """The service, or the model behind it, takes no more requests at this moment."""


class ChatModelDownError(BackendError):
    """The service is well; the chat endpoint it asks is not."""


class ChatModelSlowError(BackendError):
    """The service is well; the chat endpoint it asks did not answer in time."""


class AnswerBrokenError(BackendError):
    """The stream ended before the answer did. What had come stays on the page."""


class UnreadableAnswerError(BackendError):
    """Not the shape this service speaks: most often BACKEND_URL points at something else."""


class BackendFailedError(BackendError):
    """A fault inside the service."""


_BY_STATUS: dict[int, type[BackendError]] = {
    400: BadRequestError,
    401: NotAuthorizedError,
    403: NotAuthorizedError,
    404: UnreadableAnswerError,
    405: UnreadableAnswerError,
    413: BadRequestError,
    422: BadRequestError,
    429: TooBusyError,
    502: ChatModelDownError,
    503: TooBusyError,
    504: ChatModelSlowError,
}


def error_body(raw: str | bytes) -> ErrorBody | None:
    """The error object in a body or a stream's line; None where there is none."""
    try:
        return ErrorEnvelope.model_validate_json(raw).error
    except ValidationError:
        return None


def error_for_status(status: int, raw: bytes, request_id: str | None) -> BackendError:
    """The error that an HTTP status and its body stand for."""
    body = error_body(raw)
    kind = _BY_STATUS.get(status, BackendFailedError)
    if status == 404 and body is not None:
        kind = BadRequestError  # the service itself says that something named in the request does not exist
    return kind(
        body.message if body else "",
        status=status,
        param=body.param if body else None,
        request_id=request_id,
    )

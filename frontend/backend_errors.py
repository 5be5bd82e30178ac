"""The errors between the page and the service, one class per remedy.

    BackendError
    ├── BackendUnreachableError   nothing listens at the address: start it, or correct BACKEND_URL
    ├── BackendSilentError        it listens but does not answer in time: wait, look at its health
    ├── BadRequestError           400, 413, 422: a field has a value the service refuses
    ├── NotAuthorizedError        401, 403: BACKEND_API_KEY is missing or wrong
    ├── TooBusyError              429, 503: try again in a moment
    ├── ChatModelDownError        502: the chat endpoint behind the service is down
    ├── ChatModelSlowError        504: the chat endpoint behind the service is too slow
    ├── AnswerBrokenError         the answer ended before it was complete
    ├── UnreadableAnswerError     something else answered, or another version of the service
    └── BackendFailedError        any other status: a fault in the service; its log has the request id

`problems` puts them into words in the page's language; the errors carry what happened and nothing secret.
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
    """The service refused a value; `param` names the field if the service did."""


class NotAuthorizedError(BackendError):
    """The service wants a key, or another one."""


class TooBusyError(BackendError):
    """The service, or the model behind it, accepts no more requests at the moment."""


class ChatModelDownError(BackendError):
    """The service works; its chat endpoint does not."""


class ChatModelSlowError(BackendError):
    """The service works; its chat endpoint did not answer in time."""


class AnswerBrokenError(BackendError):
    """The stream ended before the answer did. What arrived stays on the page."""


class UnreadableAnswerError(BackendError):
    """Not an answer of this service: most likely BACKEND_URL points at something else."""


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
    """The error object in a response body or a line of a stream, if there is one."""
    try:
        return ErrorEnvelope.model_validate_json(raw).error
    except ValidationError:
        return None


_BY_CODE: dict[str | int | None, type[BackendError]] = {
    "upstream_timeout": ChatModelSlowError,
    "upstream_rejected": BadRequestError,
    "rate_limit_exceeded": TooBusyError,
    "ledger_unavailable": TooBusyError,
    "internal_error": BackendFailedError,
}


def kind_of_event(body: ErrorBody) -> type[BackendError]:
    """What an error event says that came before any answer: the status was sent before the failure was known."""
    return _BY_CODE.get(body.code, ChatModelDownError if body.type == "upstream_error" else BackendFailedError)


def error_for_status(status: int, raw: bytes, request_id: str | None) -> BackendError:
    """The error for an HTTP status and response body."""
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

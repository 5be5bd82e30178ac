"""What is recorded of a turn that failed is what its client was told."""

from __future__ import annotations

import pytest

from domain.errors import IndexUnavailable, LedgerOverloaded, LedgerReadFailed, UpstreamError
from service.api.errors import body_of
from service.turn_recorder import failure_of


@pytest.mark.parametrize(
    "error",
    [
        UpstreamError("the chat endpoint is silent", status=504, code="upstream_timeout"),
        LedgerReadFailed("the ledger cannot be read"),
        LedgerOverloaded("too many appends wait"),
        IndexUnavailable("the service is stopping"),
        ZeroDivisionError("a person's text"),
    ],
)
def test_the_record_has_the_code_and_status_that_the_client_got(error: Exception) -> None:
    failure = failure_of(error)
    status, body, _ = body_of(error)
    assert (failure.status, failure.code) == (status, body["error"]["code"])
    assert "a person's text" not in failure.error

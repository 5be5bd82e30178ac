"""What is recorded of a turn that failed is what its client was told."""

from __future__ import annotations

import pytest

from domain.errors import IndexUnavailable, LedgerOverloaded, LedgerReadFailed, UpstreamError
from service.api.errors import body_of
from service.turn_recorder import failure_of
from tests.service.running import Running
from tests.upstream import Fault


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


def test_the_client_is_told_the_upstreams_reason_where_the_failure_cannot_be_recorded(
    service: Running, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_given: object, **_named: object) -> None:
        raise LedgerOverloaded("too many appends wait")

    service.upstream.fail("answer", Fault(status=500, message="the model fell over"))
    with monkeypatch.context() as patched:
        patched.setattr(service.services.ledger, "append", refuses)
        answer = service.client.ask("Hello.", user)
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert "the model fell over" in answer.error["message"]
    assert "that it failed could not be recorded: too many appends wait" in service.log()

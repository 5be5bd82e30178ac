"""The health endpoints tell alive from well, and name what is wrong."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from domain.sqlite import DRIVER
from tests.service.running import Running, running, until
from tests.upstream import Fault, Kind


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"emb_timeout_s": 5.0, "openai_api_key": "sk-hidden"}


def test_all_is_well(service: Running) -> None:
    get = service.client.get
    assert get("/health").json() == {"status": "ok"}
    assert get("/health/embed").json() == {
        "status": "ok",
        "model": "scripted-embedding",
        "dimension": 256,
        "learned": {},
    }
    llm = get("/health/llm").json()
    assert (llm["status"], llm["model"]) == ("ok", "scripted-chat")
    assert llm["sample"]
    ready = get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ok"
    assert {name: check["status"] for name, check in ready.json()["checks"].items()} == {
        "ledger": "ok",
        "memory": "ok",
        "index": "ok",
        "mirror": "ok",
        "vectors": "ok",
        "words": "ok",
        "summaries": "ok",
    }


@pytest.mark.parametrize(
    ("path", "kind", "fault", "said"),
    [
        ("/health/embed", "embed", Fault(close=True), "cannot be reached"),
        ("/health/embed", "embed", Fault(status=429), "429"),
        ("/health/embed", "embed", Fault(status=401), "OPENAI_API_KEY"),
        ("/health/embed", "embed", Fault(nan=True), "not finite"),
        ("/health/embed", "embed", Fault(garbage=True), "EMB_BASE_URL"),
        ("/health/llm", "answer", Fault(close=True), "cannot be reached"),
        ("/health/llm", "answer", Fault(status=401), "OPENAI_API_KEY"),
        ("/health/llm", "answer", Fault(status=404), "LLM_MODEL"),
        ("/health/llm", "answer", Fault(status=500), "500"),
        ("/health/llm", "answer", Fault(garbage=True), "LLM_BASE_URL"),
    ],
)
def test_what_is_wrong_is_named(service: Running, path: str, kind: Kind, fault: Fault, said: str) -> None:
    service.upstream.fail(kind, fault)
    answer = service.client.get(path)
    assert answer.status_code == 503
    assert answer.json()["status"] == "failing"
    assert said in answer.json()["message"]
    assert "sk-hidden" not in answer.text
    assert service.client.get("/health").status_code == 200
    assert service.client.get(path).status_code == 200


def test_a_ledger_that_cannot_be_read_is_said(service: Running, tmp_path: Path, user: str) -> None:
    with running(service.upstream, tmp_path) as other:
        other.client.tell("Hello.", user)
        other.settle()
        with closing(DRIVER.connect(other.ledger.path)) as meddler:
            meddler.execute("ALTER TABLE events RENAME TO gone")
        ready = other.client.get("/health/ready")
        assert ready.status_code == 503
        ledger = ready.json()["checks"]["ledger"]
        assert ledger["status"] == "failing"
        assert "the ledger cannot be read" in ledger["message"]
        for path in ("/v1/turns", "/v1/conversations"):
            answer = other.client.get(path, user=user)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ledger_unavailable")
        assert other.client.get("/health").status_code == 200


def test_a_projection_that_fails_is_not_ready_until_it_works_again(service: Running, user: str) -> None:
    service.upstream.fail_always("embed", Fault(status=500))
    service.client.tell("Hello.", user)
    until("it shows", lambda: service.client.get("/health/ready").status_code == 503)
    checks = service.client.get("/health/ready").json()["checks"]
    assert (checks["vectors"]["status"], checks["mirror"]["status"], checks["ledger"]["status"]) == (
        "failing",
        "ok",
        "ok",
    )
    service.upstream.heal()
    until("it recovers", lambda: service.client.get("/health/ready").status_code == 200)

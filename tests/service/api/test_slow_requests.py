"""Clients that send half a request, or a byte at a time, neither shut others out nor stay for ever."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.processes import Service, service_process
from tests.service.running import Client, running
from tests.service.test_process import DOG, USER, env_of
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

HALF_SENT = 250
FILES_OF_A_SMALL_SYSTEM = 256
BY_ITSELF = None
BY_UVICORN = "service.app:app"
HEADERS = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
HALF_HEADERS = HEADERS + b"x-more: "
HALF_BODY = HEADERS + b"content-length: 1000\r\n\r\n{"
NEVER = {"REQUEST_TIMEOUT_S": "3600"}
"""No time limit helps: half-sent requests stay until the test ends."""


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(embedding_models=("old",)) as running_upstream:
        yield running_upstream


@contextmanager
def few_files() -> Iterator[None]:
    """What is started meanwhile may open as few files as a small system lets a program open that does not ask."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_OF_A_SMALL_SYSTEM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connected(service: Service, stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 30))


def answer_of(client: socket.socket) -> tuple[int, dict[str, str]]:
    """The status and the error of an answer, read until the service closes the connection."""
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.parametrize("sent", [HALF_HEADERS, HALF_BODY, b""])
def test_half_sent_requests_shut_nobody_out(upstream: ScriptedUpstream, tmp_path: Path, sent: bytes) -> None:
    env = env_of(upstream, tmp_path) | NEVER | {"CONNECTIONS_MAX": "50"}
    with service_process(env, app=BY_ITSELF) as service, ExitStack() as stack:
        for _ in range(HALF_SENT):
            connected(service, stack).sendall(sent)
        client = Client(service.base_url)
        stack.callback(client.http.close)
        assert client.tell(DOG, USER).finish_reason == "stop"
        assert "Traceback" not in service.log()


def test_with_plain_uvicorn_they_do_not_use_up_the_files_of_a_small_system(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        with few_files():
            service = stack.enter_context(service_process(env_of(upstream, tmp_path) | NEVER))
        for _ in range(HALF_SENT):
            connected(service, stack).sendall(HALF_BODY)
        assert httpx2.get(f"{service.base_url}/health", timeout=30, trust_env=False).status_code == 200


@pytest.mark.parametrize("app", [BY_ITSELF, BY_UVICORN])
def test_a_body_that_trickles_ends_with_408(upstream: ScriptedUpstream, tmp_path: Path, app: str | None) -> None:
    env = env_of(upstream, tmp_path) | {"REQUEST_TIMEOUT_S": "2"}
    with service_process(env, app=app) as service, ExitStack() as stack:
        client = connected(service, stack)
        client.sendall(HALF_BODY)
        for _ in range(3):
            time.sleep(0.1)
            client.sendall(b" ")
        status, error = answer_of(client)
    assert (status, error["code"]) == (408, "http_408")
    assert "did not come within 2 s" in error["message"]


@pytest.mark.parametrize(
    ("app", "options"), [(BY_ITSELF, ()), (BY_UVICORN, ("--http", "service.api.slow_requests:BoundedHttp"))]
)
def test_headers_that_trickle_end_with_408(
    upstream: ScriptedUpstream, tmp_path: Path, app: str | None, options: tuple[str, ...]
) -> None:
    env = env_of(upstream, tmp_path) | {"REQUEST_TIMEOUT_S": "2"}
    with service_process(env, app=app, options=options) as service, ExitStack() as stack:
        first, second = connected(service, stack), connected(service, stack)
        first.sendall(HALF_HEADERS)
        # A second request on a connection has no more time than the first.
        second.sendall(b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        assert second.recv(65536).startswith(b"HTTP/1.1 200")
        second.sendall(b"\r\n\r\n" + HALF_HEADERS)
        for client in (first, second):
            status, error = answer_of(client)
            assert (status, error["code"]) == (408, "http_408")


def test_an_answer_may_take_longer_than_a_request(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.fail("answer", Fault(hang_s=1.0))
    with running(upstream, tmp_path, emb_model="old", request_timeout_s=0.3) as service:
        assert service.client.tell(DOG, USER).status == 200
        assert service.client.tell(DOG, USER, stream=True).ended


def test_where_everybody_is_being_answered_one_more_is_refused(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED))
    env = env_of(upstream, tmp_path) | NEVER | {"CONNECTIONS_MAX": "1"}
    body = json.dumps({"messages": [{"role": "user", "content": DOG}], "user": USER}).encode()
    with service_process(env, app=BY_ITSELF) as service, ExitStack() as stack:
        busy = connected(service, stack)
        busy.sendall(HEADERS + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        upstream.wait_for("answer")
        refused = httpx2.get(f"{service.base_url}/health", timeout=30, trust_env=False)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        upstream.release()
        assert busy.recv(65536).startswith(b"HTTP/1.1 200")

"""A running service knows within seconds which keys there are, in every process; without any it stays at home."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from starlette.types import Message, Receive, Scope, Send

from domain.api_keys import NewKey, make_key
from service.api.access import AccessDenied, AnonymousGuard, is_loopback
from service.settings import ServiceSettings
from tests.processes import ROOT, free_port, service_process
from tests.service.opm import environment, opm
from tests.service.running import Client, Running, chat_body, running, until
from tests.service.test_workers import two_workers
from tests.upstream import ScriptedUpstream

LISTS = "/v1/memories"
DOCS = ("/docs", "/redoc", "/openapi.json")


def made(storage: Path, *asked: str) -> dict[str, Any]:
    return cast("dict[str, Any]", opm(environment(storage), "keys", "create", *asked, "--json").json)


def status(client: Client, key: str | None, path: str = LISTS, **headers: str) -> int:
    bearer = {"authorization": f"Bearer {key}"} if key is not None else {}
    return client.http.get(path, headers={**bearer, **headers}).status_code


class TestRunning:
    def test_the_first_key_makes_keys_required(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path) as service:
            assert status(service.client, None) == 200
            assert status(service.client, None, host="memory.example") == 403
            key = made(tmp_path, "--user", "ann")["key"]
            until("keys are required", lambda: status(service.client, None) == 401)
            for path in (*DOCS, LISTS, "/v1/models", "/health/llm"):
                assert (status(service.client, None, path), status(service.client, key, path)) == (401, 200)
            assert status(service.client, key, host="memory.example") == 200
            assert status(service.client, key, origin="https://elsewhere.example") == 200
            assert status(service.client, None, "/health") == 200

    def test_made_keys_and_those_of_the_environment_work_together(
        self, upstream: ScriptedUpstream, tmp_path: Path
    ) -> None:
        key = made(tmp_path, "--user", "ann")["key"]
        with running(upstream, tmp_path, api_keys={"opm-canary": "bob"}) as service:
            for each, user in ((key, "ann"), ("opm-canary", "bob")):
                answer = service.client.post(chat_body("Hi.", "label"), authorization=f"Bearer {each}")
                assert {event.user_id for event in service.ledger.of_answer(answer)} == {user}

    def test_events_name_the_key_by_its_id(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        key = made(tmp_path, "--user", "ann", "--name", "Ann's laptop")
        with running(upstream, tmp_path) as service:
            answer = service.client.post(chat_body("Hi.", "ann"), authorization=f"Bearer {key['key']}")
            actors = {event.origin.actor for event in service.ledger.of_answer(answer) if event.origin is not None}
            assert actors == {key["actor"]} == {f"key:{key['key_id']}"}
            assert key["key"] not in service.log()

    def test_a_revoked_and_an_expired_key_are_refused(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        kept, revoked = (made(tmp_path, "--user", name) for name in ("ann", "bob"))
        with running(upstream, tmp_path) as service:
            assert {status(service.client, each["key"]) for each in (kept, revoked)} == {200}
            opm(environment(tmp_path), "keys", "revoke", revoked["key_id"])
            until("it is refused", lambda: status(service.client, revoked["key"]) == 401)
            refused = service.client.http.get(LISTS, headers={"authorization": f"Bearer {revoked['key']}"}).json()
            assert refused["error"]["code"] == "invalid_api_key"
            assert "was revoked" in refused["error"]["message"]
            assert status(service.client, kept["key"]) == 200
            # All keys gone: what was asked for a key stays closed.
            opm(environment(tmp_path), "keys", "revoke", kept["key_id"])
            until("the last one is refused", lambda: status(service.client, kept["key"]) == 401)
            assert status(service.client, None) == 401

    def test_it_expires_while_the_service_runs(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path) as service:
            ledger = service.services.ledger
            soon = ledger.clock.now() + timedelta(seconds=4)
            key, _ = make_key(ledger, NewKey("ann", expires_at=soon), "account:ann")
            until("it is known", lambda: status(service.client, None) == 401)
            assert status(service.client, key) == 200
            until("it has expired", lambda: status(service.client, key) == 401)
            assert ledger.clock.now() >= soon
            said = service.client.http.get(LISTS, headers={"authorization": f"Bearer {key}"}).json()["error"]["message"]
            assert "has expired" in said
            assert status(service.client, None) == 401, "a service must not open itself"

    def test_after_the_last_one_anonymous_callers_need_leave(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        key = made(tmp_path, "--user", "ann")
        with running(upstream, tmp_path, allow_anonymous=True) as service:
            assert status(service.client, None) == 401
            opm(environment(tmp_path), "keys", "revoke", key["key_id"])
            until("everybody may call again", lambda: status(service.client, None) == 200)

    def test_an_erased_persons_key_is_refused(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        key = made(tmp_path, "--user", "ann")["key"]
        with running(upstream, tmp_path) as service:
            assert service.client.post(chat_body("Hi.", "ann"), authorization=f"Bearer {key}").status == 200
            assert opm(environment(tmp_path), "erase", "--user", "ann", "--yes").status == 0
            until("it is refused", lambda: status(service.client, key) == 401)

    def test_the_last_use_is_kept_when_the_service_ends(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        used, unused = (made(tmp_path, "--user", name)["key_id"] for name in ("ann", "bob"))
        key = made(tmp_path, "--user", "carl")
        with running(upstream, tmp_path) as service:
            for _ in range(3):
                assert status(service.client, key["key"]) == 200
            assert last_uses(tmp_path)[key["key_id"]] is None, "not a write for each request"
        uses = last_uses(tmp_path)
        assert uses[key["key_id"]] is not None
        assert uses[used] is uses[unused] is None


def last_uses(storage: Path) -> Mapping[str, str | None]:
    return {
        key["key_id"]: key["last_used_at"] for key in opm(environment(storage), "keys", "list", "--json").json["keys"]
    }


def test_every_process_knows_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    key = made(tmp_path, "--user", "ann")
    with two_workers(upstream, tmp_path) as workers:
        clients = [workers.connect(pid) for pid in (workers.busy, workers.idle)]
        another = made(tmp_path, "--user", "bob")
        for client in clients:
            with closing(client.http):
                assert status(client, key["key"]) == 200
                until("a new key is known", lambda client=client: status(client, another["key"]) == 200)  # type: ignore[misc]
        assert opm(environment(tmp_path), "keys", "revoke", key["key_id"]).status == 0
        for pid in (workers.busy, workers.idle):
            client = workers.connect(pid)
            with closing(client.http):
                until("it is refused", lambda client=client: status(client, key["key"]) == 401)  # type: ignore[misc]


class TestElsewhere:
    """Who is not on this machine is answered only with a key, or where the operator lets everybody in."""

    def test_a_client_behind_a_proxy_is_told_what_to_do(self, service: Running) -> None:
        response = service.client.http.get(LISTS, headers={"x-forwarded-for": "203.0.113.9"})
        assert response.status_code == 403
        error = response.json()["error"]
        assert error["code"] == "key_needed"
        assert all(fix in error["message"] for fix in ("opm keys create", "API_KEYS", "ALLOW_ANONYMOUS=1"))
        assert status(service.client, None, "/health", **{"x-forwarded-for": "203.0.113.9"}) == 200
        assert status(service.client, None, **{"x-forwarded-for": "127.0.0.1"}) == 200

    def test_with_leave_it_is_answered_under_any_address(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, allow_anonymous=True) as service:
            elsewhere = {"x-forwarded-for": "203.0.113.9"}
            assert status(service.client, None, host="192.168.1.5:9000", **elsewhere) == 200
            assert status(service.client, None, host="[fd00::5]:9000", **elsewhere) == 200
            assert status(service.client, None, host="memory.example", **elsewhere) == 403

    @pytest.mark.parametrize(
        ("server", "client", "answered"),
        [
            (("127.0.0.1", 9000), ("127.0.0.1", 1), True),
            (("::1", 9000), ("::1", 1), True),
            (("::ffff:127.0.0.1", 9000), ("::ffff:127.0.0.1", 1), True),
            (("127.0.0.1", 9000), ("192.168.1.7", 0), False),
            (("192.168.1.5", 9000), ("192.168.1.5", 1), False),
            (("0.0.0.0", 9000), ("172.17.0.1", 1), False),  # noqa: S104 - what a server may be told to be
            (("fd00::5", 9000), ("fd00::7", 1), False),
            (("127.0.0.1", 9000), ("unknown", 0), False),
            (("/run/opm.sock", None), None, True),
            (None, None, True),
        ],
    )
    async def test_by_both_ends_of_its_connection(self, server: object, client: object, answered: bool) -> None:
        seen: list[str] = []

        async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
            seen.append("asked")

        async def nothing() -> Message:
            raise AssertionError

        async def nobody(_message: Message) -> None:
            raise AssertionError

        scope = {
            "type": "http",
            "path": "/v1/models",
            "headers": [(b"host", b"localhost:9000")],
            "server": server,
            "client": client,
            "app": _WithoutKeys(),
        }
        guard = AnonymousGuard(app, settings())
        if answered:
            await guard(scope, nothing, nobody)
        else:
            with pytest.raises(AccessDenied, match="this machine"):
                await guard(scope, nothing, nobody)
        assert seen == ["asked"] * answered

    def test_plain_uvicorn_on_every_address_answers_this_machine_only(
        self, upstream: ScriptedUpstream, tmp_path: Path
    ) -> None:
        address = own_address()
        if address is None:
            pytest.skip("this machine has no address but loopback")
        options = ("--host", "0.0.0.0")  # noqa: S104 - the mistake that is tested
        with (
            service_process(environment(tmp_path, upstream), options=options) as service,
            closing(Client(service.base_url).http) as here,
            closing(Client(f"http://{address}:{service.port}").http) as there,
        ):
            assert here.get("/v1/models").status_code == 200
            assert there.get("/health").status_code == 200
            refused = there.get("/v1/models", headers={"host": "localhost"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "key_needed")

    @pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104
    def test_the_program_does_not_even_begin_to_listen(self, tmp_path: Path, host: str) -> None:
        ended = started(tmp_path, host)
        assert ended.returncode == 1
        [said] = ended.stderr.strip().splitlines()
        assert said.startswith(f"openpersistentmemory: --host {host} ")
        assert all(fix in said for fix in ("opm keys create", "API_KEYS", "ALLOW_ANONYMOUS=1"))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("given", "key"),
        [({"ALLOW_ANONYMOUS": "1"}, False), ({"API_KEYS": '{"opm-canary": "ann"}'}, False), ({}, True)],
        ids=["leave", "API_KEYS", "a made key"],
    )
    def test_with_a_key_or_leave_it_does(
        self, upstream: ScriptedUpstream, tmp_path: Path, given: dict[str, str], key: bool
    ) -> None:
        if key:
            made(tmp_path, "--user", "ann")
        options = ("--host", "0.0.0.0")  # noqa: S104
        with service_process(environment(tmp_path, upstream, **given), app=None, options=options) as service:
            assert "Uvicorn running on http://0.0.0.0" in service.log()

    @pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "[::1]", "chat.localhost"])
    def test_what_is_this_machine(self, name: str) -> None:
        assert is_loopback(name)

    @pytest.mark.parametrize("name", ["", "0.0.0.0", "::", "localhost.evil.example", "128.0.0.1", "evil"])  # noqa: S104
    def test_what_is_not(self, name: str) -> None:
        assert not is_loopback(name)


class _WithoutKeys:
    """Stands for an application whose service knows no key."""

    def __init__(self) -> None:
        self.state = self.services = self.keys = self
        self.required = False


def settings() -> ServiceSettings:
    usual = {"llm_base_url": "http://x/v1", "llm_model": "m", "emb_base_url": "http://x/v1", "emb_model": "e"}
    return ServiceSettings(_env_file=None, **usual)  # type: ignore[arg-type, call-arg]


def own_address() -> str | None:
    """Return an address of this machine that is not loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = str(probe.getsockname()[0])
    return None if is_loopback(address) else address


def started(storage: Path, host: str, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the program until it ends by itself."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    usual = {"LLM_BASE_URL": "http://127.0.0.1:9/v1", "LLM_MODEL": "m", "EMB_BASE_URL": "http://127.0.0.1:9/v1"}
    variables = kept | usual | {"EMB_MODEL": "e", "STORAGE_DIR": str(storage), "PYTHONPATH": str(ROOT)} | given
    command = [sys.executable, "-m", "service", "--host", host, "--port", str(free_port())]
    return subprocess.run(command, env=variables, cwd=storage, capture_output=True, text=True, timeout=60, check=False)

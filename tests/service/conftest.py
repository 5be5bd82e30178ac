"""One scripted upstream and one service per module; a new user and a healthy upstream per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.service.running import Client, Running, running, someone
from tests.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(module_upstream: ScriptedUpstream) -> Iterator[ScriptedUpstream]:
    """The module's upstream, without faults and calls of earlier tests."""
    responders = dict(module_upstream.responders)
    module_upstream.forget_calls()
    yield module_upstream
    module_upstream.responders.update(responders)
    module_upstream.heal()
    module_upstream.release()


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    """Extra settings of the module's service; a module overrides this fixture."""
    return {}


@pytest.fixture(scope="module")
def module_service(
    module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory, service_settings: dict[str, object]
) -> Iterator[Running]:
    with running(module_upstream, tmp_path_factory.mktemp("storage"), **service_settings) as service:
        yield service


@pytest.fixture
def service(module_service: Running, upstream: ScriptedUpstream) -> Iterator[Running]:
    """The module's service, once its background work is done."""
    module_service.settle()
    upstream.forget_calls()
    yield module_service
    upstream.heal()
    upstream.release()


@pytest.fixture
def client(service: Running) -> Client:
    return service.client


@pytest.fixture
def user() -> str:
    return someone()

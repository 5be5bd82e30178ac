"""A rebuild makes the configured model the active one, whatever interrupts it, and embeds nothing twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import projections.rebuild
from domain.errors import EmbeddingModelMismatch
from domain.ledger import Ledger
from projections.embedder import Embedder
from projections.rebuild import BAD_ARGUMENTS, DONE, FAILED, main, rebuild
from projections.vector_cache import VectorCache
from projections.vector_follower import VectorFollower
from tests.ledgers import ROOT
from tests.projections.world import FACTS, MODEL, OTHER_MODEL, World, many, opened, remember, settings_for
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

QUESTION = "When does the ferry leave?"


def environment(storage: Path, upstream: ScriptedUpstream, model: str = OTHER_MODEL) -> dict[str, str]:
    return {
        "STORAGE_DIR": str(storage),
        "EMB_BASE_URL": upstream.base_url,
        "EMB_MODEL": model,
        "EMB_BATCH": "4",
        "OPENAI_API_KEY": "sk-secret",
    }


@pytest.fixture
def env(storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    values = environment(storage, upstream)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # no .env of the developer is read
    return values


def record(storage: Path, upstream: ScriptedUpstream, users: dict[str, list[str]], model: str = MODEL) -> None:
    """Record memories under ``model``, as a service that has followed them."""

    async def work() -> None:
        async with opened(settings_for(storage, upstream, emb_model=model)) as world:
            await world.index.space_of("ann")
            for user_id, said in users.items():
                remember(world.ledger, user_id, said)
            follower = VectorFollower(world.ledger, world.index, world.cache)
            while await follower.advance():
                pass

    asyncio.run(work())
    upstream.forget_calls()


def found(storage: Path, upstream: ScriptedUpstream, user_id: str, model: str = OTHER_MODEL) -> list[tuple[int, float]]:
    async def work() -> list[tuple[int, float]]:
        async with opened(settings_for(storage, upstream, emb_model=model)) as world:
            return await world.found(user_id, QUESTION)

    return asyncio.run(work())


def asked(upstream: ScriptedUpstream) -> list[str]:
    """Return the texts of all answered calls but the probes."""
    answered = [call for call in upstream.calls_of("embed") if call.status == 200 and not call.cancelled]
    texts = [text for call in answered for text in call.body["input"]]
    return [text for text in texts if text != "dimension"]


@pytest.mark.usefixtures("env")
class TestExitStatus:
    def test_done_says_what_it_did(
        self, storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS[:3]), "bob": list(FACTS[3:5])})
        assert main([]) == DONE
        assert "emb-new is active for 2 users: 10 vectors, 10 embedded now" in capsys.readouterr().out
        assert found(storage, upstream, "ann")[0][1] > 0.3

    def test_an_empty_ledger(
        self, storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main([]) == DONE
        assert "0 users: 0 vectors" in capsys.readouterr().out
        assert found(storage, upstream, "ann") == []

    def test_no_ledger_yet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "new" / "folder"))
        assert main([]) == DONE
        assert (tmp_path / "new" / "folder" / "ledger.sqlite3").exists()

    @pytest.mark.parametrize("user_id", ["nobody", "", "a\nb"])
    def test_a_user_without_memories(
        self, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], user_id: str
    ) -> None:
        assert main(["--user", user_id]) == BAD_ARGUMENTS
        assert capsys.readouterr().err.startswith("rebuild: --user")
        assert upstream.calls == ()

    def test_a_missing_setting(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.delenv("EMB_MODEL")
        assert main([]) == FAILED
        assert "EMB_MODEL is not set" in capsys.readouterr().err

    def test_an_endpoint_that_stays_away(
        self,
        storage: Path,
        upstream: ScriptedUpstream,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS)})
        before = found(storage, upstream, "ann", MODEL)
        monkeypatch.setattr(projections.rebuild, "_ATTEMPTS", 2)
        upstream.fail("embed", Fault(), Fault())
        upstream.fail_always("embed", Fault(status=503))
        assert main([]) == FAILED
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error == "rebuild: the embedding endpoint fails (503)"
        upstream.heal()
        assert found(storage, upstream, "ann", MODEL) == before, "the old model serves until the new one is whole"


@pytest.mark.usefixtures("env")
def test_one_user(storage: Path, upstream: ScriptedUpstream) -> None:
    record(storage, upstream, {"ann": list(FACTS), "bob": list(FACTS)})
    assert main(["--user", "ann"]) == DONE
    assert found(storage, upstream, "ann")[0][1] > 0.3
    assert found(storage, upstream, "bob", MODEL)[0][1] > 0.3
    for user_id, model in (("ann", MODEL), ("bob", OTHER_MODEL)):
        with pytest.raises(EmbeddingModelMismatch, match=r"python -m projections\.rebuild"):
            found(storage, upstream, user_id, model)


@pytest.mark.usefixtures("env")
def test_rate_limits_and_failures_are_waited_out(storage: Path, upstream: ScriptedUpstream) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    upstream.fail("embed", Fault(), Fault(), Fault(status=429), Fault(status=500), Fault(close=True))
    assert main([]) == DONE
    texts = asked(upstream)
    assert len(texts) == len(set(texts)) == 16


@pytest.mark.usefixtures("env")
def test_a_model_seen_before_costs_the_probe_alone(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    before = found(storage, upstream, "ann", MODEL)
    assert main([]) == DONE
    monkeypatch.setenv("EMB_MODEL", MODEL)
    upstream.forget_calls()
    assert main([]) == DONE
    assert [call.body["input"] for call in upstream.calls_of("embed")] == [["dimension"]]
    assert found(storage, upstream, "ann", MODEL) == before


def test_killed_and_run_again_embeds_nothing_twice(
    env: dict[str, str], storage: Path, upstream: ScriptedUpstream
) -> None:
    record(storage, upstream, {"ann": many(20)})
    upstream.fail("embed", *[Fault()] * 6, Fault(hang_s=UNTIL_RELEASED))
    process = subprocess.Popen(
        [sys.executable, "-m", "projections.rebuild"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    upstream.wait_for("embed", 7, timeout=60)
    process.kill()
    process.wait()
    upstream.release()
    upstream.wait_for("embed", 7, ended=True)
    assert len(asked(upstream)) == 20
    assert main([]) == DONE
    texts = asked(upstream)
    assert len(texts) == len(set(texts)) == 40


@asynccontextmanager
async def swapped(storage: Path, upstream: ScriptedUpstream) -> AsyncIterator[World]:
    """A service that was started with the new model over memories of the old one."""
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        remember(world.ledger, "ann", FACTS)
    async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
        with pytest.raises(EmbeddingModelMismatch):
            await world.found("ann", QUESTION)
        yield world


@pytest.mark.usefixtures("env")
async def test_a_running_service_notices(storage: Path, upstream: ScriptedUpstream) -> None:
    async with swapped(storage, upstream) as world:
        (new,) = remember(world.ledger, "ann", ["A second ferry leaves at noon."])
        assert await asyncio.to_thread(main, []) == DONE
        upstream.forget_calls()
        hits = await world.found("ann", "second ferry at noon")
        assert hits[0][0] == new
        assert len(asked(upstream)) == 1


async def test_what_is_said_between_the_last_call_and_the_index_is_not_lost(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text is no refused one: it has no vector yet, and the index must not claim to be past it."""
    embed_all = projections.rebuild._embed_all
    said: list[int] = []

    async def then_somebody_speaks(ledger: Ledger, cache: VectorCache, embedder: Embedder, user_id: str | None) -> int:
        embedded = await embed_all(ledger, cache, embedder, user_id)
        said.extend(remember(ledger, "ann", ["A second ferry leaves at noon."]))
        return embedded

    monkeypatch.setattr(projections.rebuild, "_embed_all", then_somebody_speaks)
    async with swapped(storage, upstream) as world:
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        assert (await world.found("ann", "second ferry at noon"))[0][0] == said[0]


async def test_a_text_the_new_model_refuses_is_left_out_and_does_not_stop_the_rest(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    upstream.max_input_chars = 60
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", [*FACTS, "Winter. " * 30], summarised=False)
        done = await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        assert (done.vectors, done.embedded) == (9, 9)
        assert (await world.found("ann", "winter", 1))[0][1] > 0.5

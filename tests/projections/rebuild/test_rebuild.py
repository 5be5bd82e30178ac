"""A rebuild makes the configured model the active one, whatever interrupts it, and embeds nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

import projections.embedding.backfill
import projections.rebuild.generation
import projections.rebuild.processes
from domain.errors import IndexCorrupt
from domain.events import UserErased
from domain.identity import user_stream
from domain.sqlite import DRIVER
from projections.dense.projection import DenseProjection
from projections.embedding.backfill import Embedded
from projections.rebuild.command import BAD_ARGUMENTS, DONE, FAILED, main
from projections.rebuild.generation import rebuild
from tests.ledgers import ROOT
from tests.ledgers import opened as opened_ledger
from tests.ledgers import record as record_event
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
    """Record memories under ``model``, as a service does that has followed the ledger."""

    async def work() -> None:
        async with opened(settings_for(storage, upstream, emb_model=model)) as world:
            await world.index.space_of("ann")
            for user_id, said in users.items():
                remember(world.ledger, user_id, said)
            follower = DenseProjection(world.ledger, world.index, world.cache)
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
    """Return the texts of all answered calls except the probes."""
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

    def test_a_damaged_cache_is_one_line(
        self, storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record(storage, upstream, {"ann": many(150)})
        assert main([]) == DONE
        path = storage / "vectors.sqlite3"
        whole = path.read_bytes()
        failed = 0
        for at in range(0, len(whole), 16_384):
            for part in storage.glob("vectors.sqlite3*"):
                part.unlink()
            path.write_bytes(whole[:at] + bytes(8192) + whole[at + 8192 :])
            capsys.readouterr()
            status = main([])
            lines = capsys.readouterr().err.splitlines()
            assert status in {DONE, FAILED}
            if status == FAILED:
                failed += 1
                assert lines[-1].startswith("rebuild: "), lines
                assert "vectors.sqlite3" in lines[-1]
        assert failed

    def test_a_storage_that_cannot_be(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STORAGE_DIR", "/proc/none")
        assert main([]) == FAILED
        assert capsys.readouterr().err.startswith("rebuild: STORAGE_DIR cannot be used (")

    def test_an_endpoint_that_stays_away(
        self,
        storage: Path,
        upstream: ScriptedUpstream,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS)})
        before = found(storage, upstream, "ann", MODEL)
        monkeypatch.setattr(projections.embedding.backfill, "_ATTEMPTS", 2)
        upstream.fail("embed", Fault(), Fault())
        upstream.fail_always("embed", Fault(status=503))
        assert main([]) == FAILED
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("rebuild: the embedding endpoint fails (503); what was embedded is kept")
        upstream.heal()
        assert found(storage, upstream, "ann", MODEL) == before, "the old model serves until the new one is whole"


@pytest.mark.usefixtures("env")
def test_one_user(storage: Path, upstream: ScriptedUpstream) -> None:
    record(storage, upstream, {"ann": list(FACTS), "bob": list(FACTS)})
    assert main(["--user", "ann"]) == DONE
    assert found(storage, upstream, "ann")[0][1] > 0.3
    assert found(storage, upstream, "bob", MODEL)[0][1] > 0.3
    # Whatever the configuration, each user is searched with the model that is active for them.
    for user_id, model in (("ann", MODEL), ("bob", OTHER_MODEL)):
        upstream.forget_calls()
        assert found(storage, upstream, user_id, model)[0][1] > 0.3
        assert {call.body["model"] for call in upstream.calls_of("embed")} == {MODEL, OTHER_MODEL} - {model}


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


def started(env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "projections.rebuild", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept_vectors(env: dict[str, str]) -> int:
    """Return how many vectors the cache holds."""
    path = Path(env["STORAGE_DIR"]) / "vectors.sqlite3"
    with closing(DRIVER.connect(path)) as cache:
        return int(cache.execute("SELECT count(*) FROM vectors").fetchone()[0])


def kill_after(answered: int, env: dict[str, str], upstream: ScriptedUpstream) -> None:
    """Kill a rebuild when so many requests are answered and stored, and two more are in progress."""
    upstream.forget_calls()
    before = kept_vectors(env)
    upstream.fail("embed", Fault(), *[Fault()] * answered)
    upstream.fail_always("embed", Fault(hang_s=UNTIL_RELEASED))
    with started(env) as process:
        upstream.wait_for("embed", 1 + answered + 2, timeout=60)
        # Vectors are stored while the next requests are in progress.
        deadline = time.monotonic() + 60
        while kept_vectors(env) < before + 4 * answered and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    # Both requests must be aborted before the upstream answers, or it would answer into nothing.
    upstream.wait_for("embed", 1 + answered + 2, ended=True)
    upstream.heal()
    upstream.release()


def test_killed_at_several_points_it_goes_on_and_embeds_nothing_twice(
    env: dict[str, str], storage: Path, upstream: ScriptedUpstream
) -> None:
    record(storage, upstream, {"ann": many(20), "bob": [f"Bob's {text}" for text in many(12)]})
    embedded: list[str] = []
    # 64 texts, four in a request, two requests at a time: the third kill comes during the last batch.
    for answered in (0, 5, 9):
        kill_after(answered, env | {"EMB_CONCURRENCY": "2"}, upstream)
        now = asked(upstream)
        assert len(now) == 4 * answered
        embedded += now
    assert found(storage, upstream, "ann", MODEL)[0][1] > 0.3, "the old generation serves"
    upstream.forget_calls()
    assert main([]) == DONE
    embedded += asked(upstream)
    assert len(embedded) == len(set(embedded)) == 64
    upstream.forget_calls()
    assert main([]) == DONE
    assert asked(upstream) == []


@pytest.mark.usefixtures("env")
def test_requests_run_together_up_to_the_bound_and_are_full_across_users(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(storage, upstream, {f"user {number}": [f"{number}: {text}" for text in many(3)] for number in range(9)})
    monkeypatch.setenv("EMB_CONCURRENCY", "3")
    upstream.fail_always("embed", Fault(hang_s=0.02))
    assert main([]) == DONE
    assert upstream.in_flight_max("embed") == 3
    sizes = [len(call.body["input"]) for call in upstream.calls_of("embed")]
    assert sizes == [1, *[4] * 13, 2]


@pytest.mark.usefixtures("env")
def test_an_endpoint_that_dies_and_comes_back(
    storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    record(storage, upstream, {"ann": many(20)})
    upstream.fail("embed", *[Fault()] * 4, *[Fault(close=True)] * 6)
    assert main([]) == DONE
    texts = asked(upstream)
    assert len(texts) == len(set(texts)) == 40
    assert "cannot be reached; next try in" in caplog.text


@pytest.mark.usefixtures("env")
def test_it_waits_as_long_as_the_endpoint_asks(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    monkeypatch.setattr(projections.embedding.backfill, "_ASKED_MAX_S", 0.25)
    upstream.fail("embed", Fault(), Fault(status=429, retry_after="86400"), Fault(status=503, retry_after="0"))
    assert main([]) == DONE
    assert "limits the rate of requests (429); next try in 0.2 s" in caplog.text
    assert "fails (503); next try in 0.0 s" in caplog.text
    texts = asked(upstream)
    assert len(texts) == len(set(texts)) == 16


@pytest.mark.usefixtures("env")
def test_only_one_at_a_time(
    env: dict[str, str], storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    upstream.fail_always("embed", Fault(hang_s=UNTIL_RELEASED))
    with started(env) as first:
        upstream.wait_for("embed", 1, timeout=60)
        for arguments in ([], ["--prune"]):
            assert main(arguments) == FAILED
            assert "another rebuild is at work" in capsys.readouterr().err
        assert main(["--verify"]) == DONE
        first.kill()
    upstream.heal()
    upstream.release()
    assert main([]) == DONE


def manifests(storage: Path) -> dict[str, bytes]:
    return {str(path.relative_to(storage)): path.read_bytes() for path in storage.rglob("manifest.json")}


@pytest.mark.usefixtures("env")
@pytest.mark.parametrize("width", ["fp16", "fp32"])
def test_twice_gives_the_same_files_and_results(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("INDEX_STORAGE", width)
    record(storage, upstream, {"ann": many(30), "bob": list(FACTS)})
    assert main([]) == DONE
    first, results = manifests(storage), found(storage, upstream, "ann")
    snapshots = {path.name: path.read_bytes() for path in storage.rglob("*.faiss")}
    assert len(first) == 2
    assert main([]) == DONE
    assert manifests(storage) == first
    assert main(["--user", "ann"]) == DONE
    assert manifests(storage) == first
    shutil.rmtree(storage / "users")
    (storage / "vectors.sqlite3").unlink()
    assert main([]) == DONE
    assert manifests(storage) == first
    assert {path.name: path.read_bytes() for path in storage.rglob("*.faiss")} == snapshots
    assert found(storage, upstream, "ann") == results


@pytest.mark.usefixtures("env")
def test_processes_build_the_same_files(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(storage, upstream, {f"user {number}": many(number + 1) for number in range(5)})
    assert main([]) == DONE
    first = manifests(storage)
    shutil.rmtree(storage / "users")
    forget_vectors(storage, upstream)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(projections.rebuild.generation, "_EVENTS_FOR_PROCESSES", 1)
    assert main([]) == DONE
    assert manifests(storage) == first
    assert len(first) == 5


async def test_a_process_that_dies_is_said_and_nothing_is_activated(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(projections.rebuild.generation, "_EVENTS_FOR_PROCESSES", 1)
    monkeypatch.setattr(projections.rebuild.processes, "__name__", "projections.no_such_module")
    async with opened(settings_for(storage, upstream)) as world:
        for user_id in ("ann", "bob"):
            remember(world.ledger, user_id, FACTS)
        with pytest.raises(IndexCorrupt, match="ended with status 1"):
            await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        assert world.ledger.reader.active_embedding_model("ann") is None


def forget_vectors(storage: Path, upstream: ScriptedUpstream) -> None:
    """Remove all vectors of the new model from the cache, but keep its position."""

    async def lose() -> None:
        async with opened(settings_for(storage, upstream)) as world:
            number = next(number for number, space in world.cache.spaces() if space.model == OTHER_MODEL)
            world.cache.forget(number, [key for key, _ in world.cache.hashes_after(number, b"", 1000)])

    asyncio.run(lose())


@pytest.mark.usefixtures("env")
def test_an_index_grown_by_a_service_has_the_same_vectors_as_one_built_at_once(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.dense.user_index._CHANGES_MIN", 8)
    monkeypatch.setenv("EMB_MODEL", MODEL)
    record(storage, upstream, {"ann": many(30)})
    grown = manifests(storage)
    assert grown
    assert main([]) == DONE
    assert manifests(storage) == grown


@pytest.mark.usefixtures("env")
def test_a_cache_that_lost_vectors_is_filled_again(storage: Path, upstream: ScriptedUpstream) -> None:
    record(storage, upstream, {"ann": list(FACTS), "bob": ["Bob's diary."]})
    assert main([]) == DONE
    forget_vectors(storage, upstream)
    upstream.forget_calls()
    assert main([]) == DONE
    assert len(asked(upstream)) == 18
    assert found(storage, upstream, "ann")[0][1] > 0.3


@pytest.mark.usefixtures("env")
def test_another_model_under_a_name_seen_before_is_refused(
    storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    assert main([]) == DONE
    before = found(storage, upstream, "ann")
    upstream.salt = "other weights"
    assert main([]) == FAILED
    assert "another model answers under that name" in capsys.readouterr().err
    upstream.salt = ""
    assert found(storage, upstream, "ann") == before


@pytest.mark.usefixtures("env")
def test_an_erased_user_is_skipped(storage: Path, upstream: ScriptedUpstream) -> None:
    record(storage, upstream, {"ann": list(FACTS[:2]), "bob": list(FACTS[2:4])})
    erase(storage, "bob")
    assert main(["--user", "bob"]) == BAD_ARGUMENTS
    assert main([]) == DONE
    assert sum("emb-new" in name for name in manifests(storage)) == 1
    assert len(asked(upstream)) == 4


def erase(storage: Path, user_id: str) -> None:
    """Blank everything that a user said, as an erasure does."""
    with opened_ledger(storage / "ledger.sqlite3") as ledger:
        record_event(ledger, user_stream(user_id), UserErased(events=1, conversations=1))
    with contextlib.closing(DRIVER.connect(storage / "ledger.sqlite3")) as connection:
        connection.execute(
            "UPDATE events SET user_id = 'erased:1', conversation_id = 'erased:' || position, payload = '{}', "
            "salt = '' WHERE user_id = ?",
            (user_id,),
        )
        connection.commit()


@asynccontextmanager
async def swapped(storage: Path, upstream: ScriptedUpstream) -> AsyncIterator[World]:
    """A service that was started with the new model over memories of the old one."""
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        remember(world.ledger, "ann", FACTS)
    async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
        assert (await world.found("ann", QUESTION))[0][1] > 0.3
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
    """The new generation catches up with it before it is activated."""
    embed = projections.embedding.backfill.embed_texts
    said: list[int] = []

    async with swapped(storage, upstream) as world:

        async def then_somebody_speaks(*arguments: Any, **more: Any) -> Embedded:
            done = await embed(*arguments, **more)
            if len(said) < 2:
                said.extend(remember(world.ledger, "ann", [f"Ferry {len(said)} leaves at noon."]))
                said.extend(remember(world.ledger, "new user", [f"Ferry {len(said)} leaves at night."]))
            return done

        monkeypatch.setattr(projections.rebuild.generation, "embed_texts", then_somebody_speaks)
        done = await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        assert (done.users, done.vectors) == (2, 2 * (len(FACTS) + 2))
        upstream.forget_calls()
        assert (await world.found("ann", "Ferry 0 at noon"))[0][0] == said[0]
        assert (await world.found("new user", "Ferry at night"))[0][0] == said[1]
        assert len(asked(upstream)) == 2, "the questions alone"


async def test_a_text_the_new_model_refuses_is_left_out_and_does_not_stop_the_rest(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    upstream.max_input_chars = 60
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", [*FACTS, "Winter. " * 30], summarised=False)
        done = await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        assert (done.vectors, done.embedded) == (9, 9)
        assert (await world.found("ann", "winter", 1))[0][1] > 0.5

"""The rebuild command plans, verifies and prunes, with results as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.events import MemoryEdited, MemoryForgotten
from domain.identity import StreamId
from domain.ledger import Ledger
from projections.dense.index_files import IndexFiles
from projections.dense.user_index import UserIndex
from projections.embedding.cache import text_hash
from projections.embedding.endpoint import Vectors
from projections.lexical.index_files import LexicalFiles
from projections.rebuild.command import BAD_ARGUMENTS, DONE, FAILED, main
from tests.ledgers import opened as opened_ledger
from tests.ledgers import record as record_event
from tests.projections.dense.test_index_files import empty, flip_a_bit, lose, manifest_garbage, truncate
from tests.projections.rebuild.test_rebuild import env, erase, found, record  # noqa: F401 - a fixture
from tests.projections.world import FACTS, MODEL, OTHER_MODEL, many, opened, settings_for
from tests.upstream import ScriptedUpstream

pytestmark = pytest.mark.usefixtures("env")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command with ``--json``, check its status, and return what it printed."""

    def run(*arguments: str, status: int = DONE) -> Any:
        capsys.readouterr()
        assert main([*arguments, "--json"]) == status
        return json.loads(capsys.readouterr().out)

    return run


def folder_of(storage: Path, upstream: ScriptedUpstream, user_id: str, model: str = OTHER_MODEL) -> Path:
    return files_of(storage, upstream, user_id, model).folder


def files_of(storage: Path, upstream: ScriptedUpstream, user_id: str, model: str = OTHER_MODEL) -> IndexFiles:
    async def work() -> IndexFiles:
        async with opened(settings_for(storage, upstream, emb_model=model)) as world:
            return IndexFiles(world.settings.users_dir, user_id, world.client.space(64))

    return asyncio.run(work())


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--user", "ann", "--all"], "not allowed with"),
            (["--verify", "--prune"], "not allowed with"),
            (["--verify", "--dry-run"], "--verify changes nothing anyway"),
            (["--prune", "--user", "ann"], "leave --user out"),
            (["--frobnicate"], "--frobnicate"),
            (["surplus"], "surplus"),
        ],
    )
    def test_of_the_command_line(
        self, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str], upstream: ScriptedUpstream
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == BAD_ARGUMENTS
        assert says in capsys.readouterr().err
        assert upstream.calls == ()

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--model", " "], "--model = ' ': name the embedding model"),
            (["--base-url", "ftp://me:secret@host"], "--base-url = 'ftp://…host': give an http:// or https://"),
            (["--base-url", "http://me:secret@[::1"], "--base-url = 'http://…[::1': it cannot be read as an address"),
            (["--user", "erased:1"], "--user = 'erased:1'"),
            (["--user", "nobody", "--verify"], "--user = 'nobody': name a user who has memories"),
            (["--user", "nobody", "--dry-run"], "--user = 'nobody': name a user who has memories"),
        ],
    )
    def test_of_their_values(self, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(arguments) == BAD_ARGUMENTS
        assert capsys.readouterr().err.startswith(f"rebuild: {says}")


def test_the_done_document(storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]) -> None:
    record(storage, upstream, {"ann": list(FACTS[:3])})
    done = said("--all")
    assert done.pop("seconds") > 0
    assert done == {
        "model": OTHER_MODEL,
        "dimensions": 64,
        "users": 1,
        "memories": 3,
        "vectors": 6,
        "embedded": 6,
        "ledger_position": 7,
    }


def test_model_and_address_of_the_command_line_go_before_the_environments(
    storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    record(storage, upstream, {"ann": list(FACTS)})
    monkeypatch.setenv("EMB_MODEL", MODEL)
    with ScriptedUpstream(dims=96, embedding_models=("third",)) as elsewhere:
        done = said("--model", "third", "--base-url", elsewhere.base_url + "/")
        assert (done["model"], done["dimensions"], done["embedded"]) == ("third", 96, 16)
        with opened_ledger(storage / "ledger.sqlite3") as ledger:
            active = ledger.reader.active_embedding_model("ann")
        assert active is not None
        assert (active.model, active.base_url, active.query_prefix) == ("third", elsewhere.base_url, "")
        # A service configured with another model and address.
        assert found(storage, upstream, "ann", MODEL)[0][1] > 0.3


class TestDryRun:
    def test_counts_and_changes_nothing(
        self, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        record(storage, upstream, {"ann": [*FACTS[:3], FACTS[0]], "bob": list(FACTS[3:5])})
        before = {
            path: path.read_bytes() for path in storage.rglob("*") if path.is_file() and path.suffix != ".sqlite3-shm"
        }
        plan = said("--dry-run")
        assert (plan["events"], plan["texts"], plan["cached"], plan["to_embed"]) == (12, 10, 0, 10)
        assert plan["calls"] == 4, "the probe, and three requests of four texts or less"
        assert (plan["cache_vectors"], plan["cache_bytes"]) == (11, 11 * 64 * 2), "the probe's included"
        assert upstream.calls == ()
        after = {
            path: path.read_bytes() for path in storage.rglob("*") if path.is_file() and path.suffix != ".sqlite3-shm"
        }
        assert before.keys() == after.keys()
        assert before[storage / "ledger.sqlite3"] == after[storage / "ledger.sqlite3"]
        upstream.forget_calls()
        assert main([]) == DONE
        assert len(upstream.calls_of("embed")) == plan["calls"]
        assert said("--dry-run")["to_embed"] == 0
        assert said("--dry-run", "--user", "bob")["texts"] == 4
        assert said("--dry-run", "--model", MODEL)["cached"] == 10

    def test_without_a_ledger(self, tmp_path: Path, said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "nothing here"))
        assert said("--dry-run")["events"] == 0
        assert not (tmp_path / "nothing here").exists()

    def test_without_a_ledger_a_rebuild_says_that_it_makes_one(
        self,
        storage: Path,
        tmp_path: Path,
        said: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "nothing here"))
        said()
        said()
        made = f"a new, empty ledger was made at {tmp_path / 'nothing here' / 'ledger.sqlite3'}"
        assert sum(made in message for message in caplog.messages) == 1

    def test_as_text(self, storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]) -> None:
        record(storage, upstream, {"ann": list(FACTS[:3])})
        assert main(["--dry-run"]) == DONE
        out = capsys.readouterr().out
        assert "emb-new: 6 events, 6 texts; 6 to embed in about 3 calls, 0 in the cache already" in out
        assert "keeps 7 vectors, 0.0 MB" in out


class TestVerify:
    @pytest.fixture
    def rebuilt(self, storage: Path, upstream: ScriptedUpstream) -> None:
        record(storage, upstream, {"ann": many(20), "bob": list(FACTS)})
        assert main([]) == DONE

    def test_all_is_well(
        self, rebuilt: None, storage: Path, said: Callable[..., Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert said("--verify") == {"ok": True, "differences": []}
        assert main(["--verify", "--user", "ann"]) == DONE
        assert "hold what the ledger says" in capsys.readouterr().out

    def test_what_came_after_a_snapshot_is_no_difference(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        """The index applies new, corrected and withdrawn memories when it is opened."""
        with opened_ledger(storage / "ledger.sqlite3") as ledger:
            change_memories(ledger)
        assert said("--verify")["ok"]
        assert main([]) == DONE
        assert said("--verify")["ok"]

    def test_texts_without_a_vector_anywhere(
        self, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("projections.verification.indices._EMBEDDED_WITHIN_S", 0.0)
        record(storage, upstream, {"ann": list(FACTS), "bob": list(FACTS[:3]), "eve": many(20)})
        assert main([]) == DONE
        for path in storage.glob("vectors.sqlite3*"):
            path.unlink()
        assert said("--verify")["ok"], "the indices have them all"
        shutil.rmtree(storage / "users")
        differences = said("--verify", status=FAILED)["differences"]
        # A search embeds bob's six texts along with the question.
        assert [(found["user_id"], found["kind"], found["detail"]) for found in differences] == [
            (user, "missing", f"{texts} texts have no vector: they cannot be found by meaning")
            for user, texts in (("ann", 16), ("eve", 40))
        ]
        assert main([]) == DONE
        assert said("--verify")["ok"]

    def test_what_a_service_embeds_meanwhile_is_no_difference(
        self,
        storage: Path,
        upstream: ScriptedUpstream,
        said: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        record(storage, upstream, {"ann": many(20)})
        assert main([]) == DONE
        record(storage, upstream, {"bob": many(20)})
        monkeypatch.setattr("projections.verification.indices.time.sleep", lambda _seconds: main([]))
        assert said("--verify")["ok"]

    def test_a_damaged_file_of_words(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        with opened_ledger(storage / "ledger.sqlite3") as ledger:
            words = LexicalFiles(ledger.reader, storage / "users")
            words.search("ann", "violin", 3)
            words.catch_up("ann")
            words.close()
        assert said("--verify")["ok"]
        path = words.path("ann")
        whole = path.read_bytes()
        path.write_bytes(whole[:12288] + bytes(4096) + whole[16384:])
        (difference,) = said("--verify", status=FAILED)["differences"]
        assert (difference["user_id"], difference["kind"]) == ("ann", "words")
        assert "is broken" in difference["detail"]
        assert said("--verify", "--user", "bob")["ok"]

    @pytest.mark.parametrize("harm", [flip_a_bit, truncate, empty, lose, manifest_garbage])
    def test_a_broken_file(
        self,
        rebuilt: None,
        storage: Path,
        upstream: ScriptedUpstream,
        said: Callable[..., Any],
        harm: Callable[[Path], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        expected = found(storage, upstream, "ann")
        harm(folder_of(storage, upstream, "ann"))
        (difference,) = said("--verify", status=FAILED)["differences"]
        assert (difference["user_id"], difference["kind"]) == ("ann", "broken")
        assert said("--verify", "--user", "bob")["ok"]
        assert main(["--verify"]) == FAILED
        assert "user 'ann': broken: " in capsys.readouterr().out
        assert found(storage, upstream, "ann") == expected
        assert main(["--user", "ann"]) == DONE
        assert said("--verify")["ok"]

    def test_another_users_file(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        ann, bob = (folder_of(storage, upstream, user) for user in ("ann", "bob"))
        shutil.rmtree(ann)
        shutil.copytree(bob, ann)
        (difference,) = said("--verify", status=FAILED)["differences"]
        assert (difference["user_id"], difference["kind"]) == ("ann", "broken")
        assert "not of this ledger and user" in difference["detail"]

    @pytest.mark.parametrize("kind", ["missing", "surplus", "changed"])
    def test_a_whole_file_with_the_wrong_content(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any], kind: str
    ) -> None:
        files = files_of(storage, upstream, "ann")
        manifest = files.manifest()
        assert manifest is not None
        index = files.load(manifest)
        keys = index.snapshot_keys
        if kind == "missing":
            gone = [(manifest.position, int(keys[0]))]
            assert index.extend(manifest.position, [], [], vector_changes(0), manifest.position, withdrawn=gone)
        else:
            key = 4_000_000 if kind == "surplus" else int(keys[0])
            assert index.extend(manifest.position, [manifest.position], [key], vector_changes(1), manifest.position)
        rewrite(files, index, manifest.anchor)
        (difference,) = said("--verify", status=FAILED)["differences"]
        assert (difference["user_id"], difference["kind"]) == ("ann", kind)
        assert difference["detail"].startswith("1 ")

    def test_a_withdrawn_memory_that_is_still_in_a_later_snapshot(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        files = files_of(storage, upstream, "ann")
        manifest = files.manifest()
        assert manifest is not None
        index = files.load(manifest)
        with opened_ledger(storage / "ledger.sqlite3") as ledger:
            forgotten = change_memories(ledger)
            assert main([]) == DONE
            index.extend(manifest.position, [], [], vector_changes(0), forgotten)
            rewrite(files, index, ledger.reader.hash_at(forgotten))
        kinds = {difference["kind"] for difference in said("--verify", status=FAILED)["differences"]}
        assert kinds == {"surplus", "changed"}

    def test_a_cache_that_is_ahead_of_a_restored_ledger(
        self, rebuilt: None, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        async def work() -> None:
            async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
                world.cache.put(world.cache.space_id(world.client.space(64)), {}, position=10_000)

        asyncio.run(work())
        (difference,) = said("--verify", status=FAILED)["differences"]
        assert (difference["user_id"], difference["kind"]) == ("", "ahead")


def vector_changes(count: int) -> Vectors:
    return np.full((count, 64), 0.125, np.float32)


def rewrite(files: IndexFiles, index: UserIndex, anchor: str) -> None:
    snapshot, position = index.snapshot()
    files.save(snapshot, index.storage, position, anchor)


def change_memories(ledger: Ledger) -> int:
    """Correct one of ann's memories, withdraw another, add a third; return the position of the last event."""
    stream = StreamId("ann", "chat")
    one, other = (event for event in ledger.reader.events_after(0, 5, ["TurnRecorded"])[:2])
    edited = MemoryEdited(memory_id=one.event_id, turn_id=1, summary="Corrected.")
    record_event(ledger, stream, edited, causation_id=one.event_id)
    forgotten = MemoryForgotten(memory_id=other.event_id, turn_id=2)
    return record_event(ledger, stream, forgotten, causation_id=other.event_id)[0].position


class TestPrune:
    def test_generations_out_of_use(
        self, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS), "bob": list(FACTS)})
        monkeypatch.setenv("EMB_MODEL", MODEL)
        assert main([]) == DONE
        monkeypatch.setenv("EMB_MODEL", OTHER_MODEL)
        assert main([]) == DONE
        expected = found(storage, upstream, "ann")
        planned = said("--prune", "--dry-run")
        assert len(planned["folders"]) == 2
        assert planned["models"] == [MODEL]
        assert planned["vectors"] == 25, "each text once, the summaries for each user, and the probe"
        assert said("--prune", "--dry-run") == planned
        assert said("--prune") == planned | {"dry_run": False}
        assert planned["freed_bytes"] == planned["folder_bytes"] + planned["vector_bytes"] > 0
        assert not folder_of(storage, upstream, "ann", MODEL).exists()
        assert said("--prune")["freed_bytes"] == 0
        assert found(storage, upstream, "ann") == expected
        assert said("--verify")["ok"]
        # What was dropped can be built again.
        monkeypatch.setenv("EMB_MODEL", MODEL)
        assert said()["embedded"] == 24

    def test_a_model_active_for_one_user_is_kept(
        self, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS), "bob": list(FACTS)})
        assert main(["--user", "bob"]) == DONE
        assert said("--prune")["freed_bytes"] == 0
        assert found(storage, upstream, "ann", MODEL)[0][1] > 0.3
        assert found(storage, upstream, "bob", MODEL)[0][1] > 0.3

    def test_vectors_without_a_memory(
        self, storage: Path, upstream: ScriptedUpstream, said: Callable[..., Any]
    ) -> None:
        record(storage, upstream, {"ann": list(FACTS), "bob": ["Bob's diary.", "Bob's secret."]})
        assert main([]) == DONE
        erase(storage, "bob")
        with opened_ledger(storage / "ledger.sqlite3") as ledger:
            change_memories(ledger)
        expected = found(storage, upstream, "ann")
        planned = said("--prune", "--dry-run")
        # Bob's four texts, two of the withdrawn memory, and the summary that was corrected; the old model keeps
        # nothing: it is active for nobody.
        assert planned["orphans"] == 7
        assert planned["folders"] == [str(folder_of(storage, upstream, "bob").relative_to(storage / "users"))]
        assert said("--prune")["orphans"] == 7
        assert said("--prune")["orphans"] == 0
        assert found(storage, upstream, "ann") == expected

        async def texts_kept() -> set[bytes]:
            async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
                number = world.cache.space_id(world.client.space(64))
                return world.cache.known(number, [text_hash("Bob's diary.\nNoted."), text_hash("dimension")])

        assert asyncio.run(texts_kept()) == {text_hash("dimension")}

    def test_without_a_ledger_a_rebuild_says_that_it_makes_one(
        self,
        storage: Path,
        tmp_path: Path,
        said: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "nothing here"))
        said()
        said()
        made = f"a new, empty ledger was made at {tmp_path / 'nothing here' / 'ledger.sqlite3'}"
        assert sum(made in message for message in caplog.messages) == 1

    def test_as_text(self, storage: Path, upstream: ScriptedUpstream, capsys: pytest.CaptureFixture[str]) -> None:
        record(storage, upstream, {"ann": list(FACTS)})
        assert main([]) == DONE
        capsys.readouterr()
        assert main(["--prune", "--dry-run"]) == DONE
        assert "would drop 0 indices (0.0 MB), 17 vectors of emb-old" in capsys.readouterr().out
        assert main(["--prune"]) == DONE
        assert capsys.readouterr().out.startswith("dropped 0 indices")

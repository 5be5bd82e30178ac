"""``opm verify`` on the damage it is for: it names what it finds, quotes nobody, and never costs the good copy."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from domain.identity import StreamId
from domain.sqlite import DRIVER
from projections.dense import user_index
from projections.dense.projection import DenseProjection
from projections.lexical.index_files import LexicalFiles
from projections.mirror.mirror import Mirror, mirror_path
from service.cli.shell import BAD_ARGUMENTS, DONE, FAILED
from tests.ledgers import STREAM, all_stored, opened, record_turn
from tests.projections.world import MODEL, many, remember, settings_for
from tests.projections.world import opened as world_opened
from tests.service.cli.conftest import Opm
from tests.service.running import Client, running
from tests.upstream import ScriptedUpstream

SECRET = "Zanzibarquest"
OTHER = StreamId("bob", "c")


@pytest.fixture
def kept(storage: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The storage of a stopped service: ledger, mirror, vectors, a snapshot of them, words."""
    monkeypatch.setattr(user_index, "_CHANGES_MIN", 8)

    async def made(upstream: ScriptedUpstream) -> None:
        async with world_opened(settings_for(storage, upstream)) as world:
            await world.index.space_of("ann")
            remember(world.ledger, "ann", [*many(6), f"The code word is {SECRET}."])
            record_turn(world.ledger, OTHER, "Bob is here.")
            dense = DenseProjection(world.ledger, world.index, world.cache)
            mirror = Mirror(world.ledger.reader, storage)
            while await dense.advance() or await mirror.advance():
                pass
            with closing(LexicalFiles(world.ledger.reader, world.settings.users_dir)) as words:
                words.catch_up("ann")

    with ScriptedUpstream(dims=64, embedding_models=(MODEL,)) as upstream:
        asyncio.run(made(upstream))
    assert list(storage.rglob("*.faiss"))
    return storage


def altered(path: Path, *statements: str | tuple[str, object]) -> None:
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE").fetchall()
        connection.execute("DROP TRIGGER IF EXISTS events_no_update")
        reading = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql LIKE '%payload ->>%'"
        for (name,) in connection.execute(reading).fetchall():  # they read every payload that is written
            connection.execute(f"DROP INDEX {name}")
        for statement in statements:
            connection.execute(*((statement,) if isinstance(statement, str) else (statement[0], (statement[1],))))


def replaced(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def payload(value: object) -> Callable[[Path], None]:
    """Put something in the place of the newest turn's payload."""
    sql = "UPDATE events SET payload = ? WHERE instr(payload, 'Zanzibarquest')"
    return lambda storage: altered(storage / "ledger.sqlite3", (sql, value))


def torn(name: str) -> Callable[[Path], None]:
    def tear(storage: Path) -> None:
        [path] = storage.rglob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 3 :] = b"\x5a" * (len(content) - len(content) // 3)
        path.write_bytes(content)

    return tear


def cut(name: str) -> Callable[[Path], None]:
    def shorten(storage: Path) -> None:
        path = next(path for path in sorted(storage.rglob(name)) if path.stat().st_size)
        path.write_bytes(path.read_bytes()[:-40])

    return shorten


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a payload that is no JSON": payload(f'{{"user": "{SECRET}'),
    "a payload of another shape": payload(json.dumps({"user": SECRET, "ts": "never"})),
    "a payload that is a list": payload(json.dumps([SECRET])),
    "a payload nested deep": payload("[" * 100_000),
    "a payload that is a blob": payload(b"\xff\x00" + SECRET.encode()),
    "a payload that is a number": payload(7),
    "a text that is not UTF-8": lambda storage: altered(
        storage / "ledger.sqlite3",
        "UPDATE events SET payload = CAST(x'7bff' || payload AS TEXT) WHERE instr(payload, 'Zanzibarquest')",
    ),
    "no events": lambda storage: altered(storage / "ledger.sqlite3", "DROP TABLE events"),
    "a torn ledger": torn("ledger.sqlite3"),
    "a cut ledger": cut("ledger.sqlite3"),
    "vectors that are no database": lambda storage: (
        (storage / "vectors.sqlite3").write_bytes(b"vectors" * 999) and None
    ),
    "torn vectors": torn("vectors.sqlite3"),
    "vectors without a table": lambda storage: altered(storage / "vectors.sqlite3", "DROP TABLE vectors"),
    "torn words": torn("lexical.sqlite3"),
    "words without a table": lambda storage: altered(next(storage.rglob("lexical.sqlite3")), "DROP TABLE checkpoint"),
    "a cut line": cut("*.jsonl"),
    "lines of garbage": torn("chat.jsonl"),
}
UNKNOWABLE = {"vectors without a table"}
"""What the next start puts right without a loss, so that nothing differs from what was written."""


class TestDamage:
    @pytest.mark.parametrize("name", sorted(DAMAGE))
    @pytest.mark.parametrize("arguments", [[], ["--json"], ["--deep"]], ids=["plain", "json", "deep"])
    def test_it_is_named_without_a_traceback_and_without_a_word_of_the_text(
        self, opm: Opm, kept: Path, name: str, arguments: list[str]
    ) -> None:
        assert opm("verify").status == DONE
        DAMAGE[name](kept)
        ran = opm("verify", *arguments)
        assert ran.status == (DONE if name in UNKNOWABLE else FAILED), ran.out + ran.err
        assert "Traceback" not in ran.err
        assert SECRET not in ran.out + ran.err
        if arguments == ["--json"]:
            found = json.loads(ran.out)
            # What cannot be opened at all is an error, and names the mirror as the way back.
            assert (
                "opm restore --from-mirror" in found["error"]["message"]
                if "error" in found
                else found["well"] is (name in UNKNOWABLE)
            )

    def test_one_damaged_event_does_not_hide_what_else_is_wrong(self, opm: Opm, kept: Path) -> None:
        DAMAGE["a payload that is no JSON"](kept)
        path = mirror_path(kept, OTHER)
        path.write_bytes(path.read_bytes().replace(b"Bob is here", b"Eve is here"))
        found = json.loads(opm("verify", "--json").out)["findings"]
        assert {finding["path"] for finding in found if finding["part"] == "mirror"} >= {
            str(path.relative_to(kept)),
            str(mirror_path(kept, StreamId("ann", "chat")).relative_to(kept)),
        }

    def test_damaged_vectors_are_left_where_they_are(self, opm: Opm, kept: Path) -> None:
        DAMAGE["vectors that are no database"](kept)
        before = (kept / "vectors.sqlite3").read_bytes()
        assert "delete it; its texts are embedded again" in opm("verify").out
        assert (kept / "vectors.sqlite3").read_bytes() == before


class TestAdvice:
    def test_a_changed_ledger_is_made_again_of_the_sound_mirror(self, opm: Opm, kept: Path) -> None:
        head = opm("verify", "--head").out
        altered(kept / "ledger.sqlite3", "UPDATE events SET payload = replace(payload, 'Zanzibarquest', 'Porto')")
        ran = opm("verify")
        assert "the mirror is as it was written" in ran.out
        assert "opm restore --from-mirror" in ran.out
        assert "delete the file" not in ran.out
        assert opm("restore", "--from-mirror").status == DONE
        assert opm("verify", "--head").out == head
        assert opm("verify").status == DONE

    def test_a_cut_ledger_is_made_again_of_the_longer_mirror(self, opm: Opm, kept: Path) -> None:
        head = opm("verify", "--head").out.strip()
        altered(
            kept / "ledger.sqlite3",
            "DROP TRIGGER events_no_delete",
            "DELETE FROM events WHERE position > 3",
            "CREATE TRIGGER events_no_delete BEFORE DELETE ON events "
            "BEGIN SELECT RAISE(ABORT, 'events is append-only: an event cannot be removed'); END",
        )
        ran = opm("verify", "--since", head)
        assert "keep the file" in ran.out
        assert "delete it" not in ran.out.replace("delete it, and it is made again", "").replace("users/bob", "")
        assert "opm restore --from-mirror" in ran.out
        assert opm("restore", "--from-mirror", "--since", head).status == DONE
        assert opm("verify", "--since", head).status == DONE

    def test_where_both_are_damaged_a_backup_is_named(self, opm: Opm, kept: Path) -> None:
        altered(kept / "ledger.sqlite3", "UPDATE events SET recorded_at = '' WHERE position = 2")
        path = mirror_path(kept, OTHER)
        path.write_bytes(path.read_bytes()[:-9])
        assert "opm restore PATH" in json.loads(opm("verify", "--json").out)["advice"]

    def test_a_damaged_mirror_of_a_sound_ledger_may_be_written_anew(self, opm: Opm, kept: Path) -> None:
        path = mirror_path(kept, OTHER)
        path.write_bytes(path.read_bytes().replace(b"Bob is here", b"Eve is here"))
        ran = opm("verify")
        assert "delete the file, and the service writes it anew" in ran.out
        assert "what to do:" not in ran.out

    def test_a_ledger_that_cannot_be_opened_points_to_the_mirror(self, opm: Opm, kept: Path) -> None:
        head = opm("verify", "--head").out
        (kept / "ledger.sqlite3").write_bytes(b"no database" * 1000)
        ran = opm("verify")
        assert (ran.status, len(ran.err.splitlines())) == (FAILED, 1)
        assert "opm restore --from-mirror" in ran.err
        assert opm("restore", "--from-mirror").status == DONE
        assert opm("verify", "--head").out == head


class TestOfAFile:
    def test_a_backup_is_verified_where_it_lies(self, opm: Opm, kept: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy.sqlite3"
        assert opm("backup", str(copy)).status == DONE
        ran = opm("verify", str(copy))
        assert (ran.status, ran.out.splitlines()[-1]) == (DONE, "all is well")
        assert opm("verify", str(copy), "--head").out == opm("verify", "--head").out
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["copy.sqlite3"]
        altered(copy, "UPDATE events SET recorded_at = '' WHERE position = 2")
        found = json.loads(opm("verify", str(copy), "--json").out)
        assert (found["well"], found["findings"][0]["part"]) == (False, "schema")
        assert opm("verify").status == DONE, "the storage is another ledger"

    def test_a_head_is_looked_for_in_it(self, opm: Opm, kept: Path, tmp_path: Path) -> None:
        assert opm("backup", str(tmp_path / "copy.sqlite3")).status == DONE
        with opened(kept / "ledger.sqlite3") as ledger:
            record_turn(ledger, STREAM)
        head = opm("verify", "--head").out.strip()
        ran = opm("verify", str(tmp_path / "copy.sqlite3"), "--since", head)
        assert (ran.status, "its tail was cut off" in ran.out) == (FAILED, True)

    @pytest.mark.parametrize(("content", "status"), [(None, BAD_ARGUMENTS), (b"", FAILED), (b"x" * 5000, FAILED)])
    def test_what_is_none_is_one_line(self, opm: Opm, tmp_path: Path, content: bytes | None, status: int) -> None:
        path = tmp_path / "other.sqlite3"
        if content is not None:
            path.write_bytes(content)
        ran = opm("verify", str(path))
        assert (ran.status, ran.out, len(ran.err.splitlines())) == (status, "", 1)


def test_beside_a_busy_service_nothing_is_found(opm: Opm, storage: Path) -> None:
    """Turns, summaries and mirror lines arrive during every check; once the service is quiet, nothing is behind."""
    stop = threading.Event()
    with ScriptedUpstream() as upstream, running(upstream, storage) as service:

        def talk(person: int) -> None:
            client = Client(service.client.base_url)
            number = 0
            while not stop.is_set():
                number += 1
                client.tell(f"Fact {number} of {person}.", f"user{person % 3}", f"c{person}-{number // 10}")
            client.http.close()

        talking = [threading.Thread(target=talk, args=(person,)) for person in range(4)]
        for thread in talking:
            thread.start()
        try:
            for _ in range(8):
                ran = opm("verify")
                assert ran.status == DONE, ran.out
        finally:
            stop.set()
            for thread in talking:
                thread.join()
        service.settle()
        found = json.loads(opm("verify", "--json").out)
        assert (found["well"], found["mirror"]["behind"]) == (True, 0)
        with opened(storage / "ledger.sqlite3") as ledger:
            assert len(all_stored(ledger)) == found["mirror"]["lines"]


def test_sqlite_is_the_one_that_quotes() -> None:
    """The driver's own words for a text that is not UTF-8 hold that text, which is why they are cut."""
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(sqlite3.OperationalError, match=SECRET):
        connection.execute(f"SELECT CAST(x'ff' || '{SECRET}' AS TEXT)").fetchall()


def test_a_ledger_without_a_mirror_is_one_finding(opm: Opm, storage: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        for number in range(5):
            record_turn(ledger, StreamId("ann", f"c{number}"))
    ran = opm("verify")
    assert ran.status == FAILED
    [finding] = [line for line in ran.out.splitlines() if line.startswith("mirror: there is no")]
    assert "there is no mirror" in finding
    assert "opm verify FILE" in finding
    assert "1 findings" in ran.out
    assert opm("verify", str(storage / "ledger.sqlite3")).status == DONE


def test_it_says_how_many_events_erasures_have_blanked(opm: Opm, storage: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        turn = record_turn(ledger, STREAM)
        record_turn(ledger, STREAM, "What is two and two?", "Four.")
    path = str(storage / "ledger.sqlite3")
    assert "blanked" not in opm("verify", path).out
    assert opm("erase", "-u", STREAM.user_id, "--memory", turn.event_id, "--yes").status == DONE
    assert "ledger: 4 events, 1 of them blanked by erasures" in opm("verify", path).out
    assert json.loads(opm("verify", path, "--json").out)["blanked"] == 1

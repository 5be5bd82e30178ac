"""Mirror, snapshots and schema are compared with the ledger, and damage is told apart from lag."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from domain.errors import LedgerSchemaError
from domain.events import UserErased
from domain.identity import SYSTEM_STREAM, StreamId, user_stream
from domain.ledger import Ledger
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from domain.verification import LedgerHead
from projections.dense import user_index
from projections.dense.index_files import IndexFiles, Manifest
from projections.dense.projection import DenseProjection
from projections.embedding.endpoint import EmbeddingSpace
from projections.mirror.mirror import Mirror, mirror_files, mirror_path
from projections.verification.storage import FINDINGS_MAX, Verified, head_of, verify_ledger_file, verify_storage
from tests.ledgers import STREAM, activated, all_stored, one_of_each, opened, record, record_turn
from tests.projections.world import many, remember, settings_for
from tests.projections.world import opened as world_opened
from tests.upstream import ScriptedUpstream

STREAMS = (STREAM, StreamId("ann", "a/b"), StreamId("用户", "对话"), user_stream("ann"), SYSTEM_STREAM)
PAYLOADS = [payload for payload in one_of_each() if not isinstance(payload, UserErased)]


@pytest.fixture
def settings(storage_dir: Path) -> StorageSettings:
    return StorageSettings(storage_dir=storage_dir)


@pytest.fixture
async def mirrored(storage_dir: Path) -> Path:
    """The storage of a stopped service, with a mirror."""
    with opened(storage_dir / "ledger.sqlite3") as ledger:
        for stream in STREAMS:
            record(ledger, stream, *PAYLOADS)
        await to_head(Mirror(ledger.reader, storage_dir))
    return storage_dir


async def to_head(mirror: Mirror) -> None:
    while await mirror.advance():
        pass


def said(verified: Verified) -> list[tuple[str, str | None, int | None, str]]:
    return [(finding.part, finding.path, finding.line, finding.what) for finding in verified.findings]


class TestMirror:
    def test_a_whole_one_is_well(self, mirrored: Path, settings: StorageSettings) -> None:
        verified = verify_storage(settings)
        assert verified.findings == ()
        events = len(STREAMS) * len(PAYLOADS)
        assert (verified.mirror.files, verified.mirror.lines, verified.mirror.behind) == (len(STREAMS), events, 0)
        assert verified.head == head_of(settings.ledger_path)
        assert verified.head.position == events

    @hypothesis_settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.data())
    def test_whatever_is_done_to_a_file_is_named_with_its_line(
        self, mirrored: Path, settings: StorageSettings, data: st.DataObject
    ) -> None:
        path = data.draw(st.sampled_from(sorted(mirror_files(mirrored))), "file")
        before = path.read_bytes()
        lines = before.splitlines(keepends=True)
        place = data.draw(st.integers(0, len(lines) - 1), "line")
        other = data.draw(st.integers(0, len(lines) - 1), "other")
        at = data.draw(st.integers(0, len(lines[place]) - 1), "byte")
        line = lines[place]
        edits: dict[str, list[bytes]] = {
            "edit": [*lines[:place], line[:at] + bytes([line[at] ^ 1]) + line[at + 1 :], *lines[place + 1 :]],
            "remove": [*lines[:place], *lines[place + 1 :]],
            "duplicate": [*lines[: place + 1], line, *lines[place + 1 :]],
            "swap": [lines[{place: other, other: place}.get(number, number)] for number in range(len(lines))],
            "foreign": [*lines[:place], mirror_path(mirrored, SYSTEM_STREAM).read_bytes(), *lines[place:]],
            "blank": [*lines[:place], b"\n", *lines[place:]],
            "cut": [*lines[:place], line[:at]],
            "spaces": [*lines[:place], line.replace(b'", "', b'","', 1), *lines[place + 1 :]],
        }
        after = b"".join(edits[data.draw(st.sampled_from(sorted(edits)), "edit")])
        assume(after != before)
        path.write_bytes(after)
        try:
            found = [finding for finding in verify_storage(settings).findings if finding.part == "mirror"]
        finally:
            path.write_bytes(before)
        assert [finding.path for finding in found] == [str(path.relative_to(mirrored))]
        same = [one == two for one, two in zip(lines, after.splitlines(keepends=True), strict=False)]
        assert found[0].line == (same.index(False) if False in same else len(same)) + 1

    def test_a_file_that_is_gone_is_missed(self, mirrored: Path, settings: StorageSettings) -> None:
        mirror_path(mirrored, STREAM).unlink()
        [(part, path, line, what)] = said(verify_storage(settings))
        assert (part, path, line) == ("mirror", "users/ann/conversations/trip.jsonl", 1)
        assert what.startswith(f"{len(PAYLOADS)} events of the ledger, from position 1 on: missing here")

    @pytest.mark.parametrize(
        "name",
        ["users/ann/conversations/b.jsonl", "users/zoe/user.jsonl", "system/notes.txt", "users/x/conversations/y.txt"],
    )
    def test_a_file_of_no_conversation_is_foreign(self, mirrored: Path, settings: StorageSettings, name: str) -> None:
        (mirrored / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(mirror_path(mirrored, STREAM), mirrored / name)
        assert said(verify_storage(settings)) == [
            ("mirror", name, None, "no conversation of the ledger has this file: delete it")
        ]

    def test_a_folder_in_a_files_place_is_said(self, mirrored: Path, settings: StorageSettings) -> None:
        path = mirror_path(mirrored, STREAM)
        path.unlink()
        path.mkdir()
        assert "cannot be read" in said(verify_storage(settings))[0][3]


class TestBesideAService:
    def test_what_is_not_mirrored_yet_is_a_lag(self, mirrored: Path, settings: StorageSettings) -> None:
        with opened(settings.ledger_path) as ledger:
            record_turn(ledger, STREAM)
            record_turn(ledger, StreamId("new", "new"))
            verified = verify_storage(settings)
        assert (verified.findings, verified.mirror.behind) == ((), 2)
        # The service has stopped: the next start adds them.
        assert [finding.line for finding in verify_storage(settings).findings] == [len(PAYLOADS) + 1, 1]

    def test_a_line_that_is_being_written_is_a_lag_too(self, mirrored: Path, settings: StorageSettings) -> None:
        newest = mirror_path(mirrored, SYSTEM_STREAM)
        content = newest.read_bytes()
        newest.write_bytes(content[:-10])
        with opened(settings.ledger_path):
            verified = verify_storage(settings)
        assert (verified.findings, verified.mirror.behind) == ((), 1)
        assert len(verify_storage(settings).findings) == 1

    def test_a_tail_cut_from_an_older_file_is_not(self, mirrored: Path, settings: StorageSettings) -> None:
        path = mirror_path(mirrored, STREAM)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        with opened(settings.ledger_path):
            verified = verify_storage(settings)
        assert [(finding.path, finding.line) for finding in verified.findings] == [
            ("users/ann/conversations/trip.jsonl", len(PAYLOADS))
        ]


class TestSnapshots:
    @pytest.fixture
    async def indexed(
        self, storage_dir: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> StorageSettings:
        monkeypatch.setattr(user_index, "_CHANGES_MIN", 8)
        async with world_opened(settings_for(storage_dir, upstream)) as world:
            await world.index.space_of("ann")
            remember(world.ledger, "ann", many(30))
            follower = DenseProjection(world.ledger, world.index, world.cache)
            while await follower.advance():
                pass
            await to_head(Mirror(world.ledger.reader, storage_dir))
        return StorageSettings(storage_dir=storage_dir)

    def manifest(self, settings: StorageSettings) -> Path:
        [path] = settings.users_dir.glob("ann/index/*/manifest.json")
        return path

    def test_a_whole_one_is_well(self, indexed: StorageSettings) -> None:
        self.manifest(indexed)
        assert verify_storage(indexed).findings == ()

    @pytest.mark.parametrize(
        ("edit", "what"),
        [
            (lambda path: path.write_text("{}"), "manifest.json cannot be read"),
            (
                lambda path: path.write_text(path.read_text().replace('"anchor": "sha256:', '"anchor": "sha256:0')),
                "pos",
            ),
            (lambda path: next(path.parent.glob("*.faiss")).unlink(), "cannot be read"),
            (lambda path: flip(next(path.parent.glob("*.faiss"))), "does not match its checksum"),
            (lambda path: path.parent.rename(path.parent.with_name("other")), "the folder of another embedding space"),
            (lambda path: path.parent.parent.parent.rename(path.parents[3] / "zoe"), "no user of the ledger"),
        ],
    )
    def test_what_is_wrong_is_said(self, indexed: StorageSettings, edit: Callable[[Path], object], what: str) -> None:
        edit(self.manifest(indexed))
        found = [finding for finding in verify_storage(indexed).findings if finding.part == "index"]
        assert len(found) == 1
        assert what in found[0].what

    def test_a_vector_that_is_missing_or_stands_for_nothing_is_named(self, indexed: StorageSettings) -> None:
        then = Manifest.model_validate_json(self.manifest(indexed).read_bytes())
        space = EmbeddingSpace(then.model, then.dimensions, then.passage_prefix)
        files = IndexFiles(indexed.users_dir, "ann", space)
        snapshot, position = files.load(then).snapshot()
        snapshot.remove_ids(faiss.vector_to_array(snapshot.id_map)[:1])
        snapshot.add_with_ids(np.ones((1, then.dimensions), np.float32), np.array([4_000_000], np.int64))
        files.save(snapshot, then.storage, position, then.anchor)
        said = [finding.what for finding in verify_storage(indexed).findings]
        assert [what.split(" of ")[0] for what in said] == ["1 texts", "1 vectors"]
        (indexed.storage_dir / "vectors.sqlite3").unlink()
        # Without the cache the refused texts are unknown, so none can be called missing.
        said = [finding.what for finding in verify_storage(indexed).findings]
        assert [what.split(" of ")[0] for what in said] == ["1 vectors"]


def replace_in(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class TestSchema:
    @pytest.mark.parametrize(
        ("statement", "what"),
        [
            ("DROP TRIGGER events_no_delete", "the trigger events_no_delete is missing"),
            ("DROP INDEX events_causation", "the index events_causation is missing"),
            (
                "DROP TRIGGER events_no_delete; "
                "CREATE TRIGGER events_no_delete BEFORE DELETE ON events BEGIN SELECT 1; END",
                "the trigger events_no_delete is not the one that the migrations make",
            ),
            (
                "CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END",
                "the trigger mine was not made by the migrations",
            ),
        ],
    )
    def test_what_guards_the_ledger_must_be_there(
        self, ledger: Ledger, settings: StorageSettings, statement: str, what: str
    ) -> None:
        with closing(DRIVER.connect(ledger.path)) as connection:
            connection.executescript(statement)
        head, findings = verify_ledger_file(settings.ledger_path)
        assert [(finding.part, finding.what.startswith(what)) for finding in findings] == [("schema", True)]
        assert head == LedgerHead(*ledger.reader.head())

    def test_what_an_operator_adds_for_reading_does_not_matter(self, ledger: Ledger, settings: StorageSettings) -> None:
        with closing(DRIVER.connect(ledger.path)) as connection:
            connection.executescript(
                "CREATE VIEW mine AS SELECT * FROM events; CREATE INDEX i ON events (recorded_at);"
            )
        assert verify_ledger_file(settings.ledger_path)[1] == []


class TestFiles:
    def test_an_index_that_does_not_have_its_rows_shows_in_depth_alone(
        self, ledger: Ledger, settings: StorageSettings
    ) -> None:
        record(ledger, STREAM, *PAYLOADS)
        ledger.close()
        names = ("events_type", "events_correlation")
        with closing(DRIVER.connect(settings.ledger_path, isolation_level=None)) as connection:
            pages = [
                connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]
                for name in names
            ]
            connection.execute("PRAGMA writable_schema=ON")
            for name, page in zip(names, reversed(pages), strict=True):
                connection.execute("UPDATE sqlite_master SET rootpage = ? WHERE name = ?", (page, name))
        assert verify_ledger_file(settings.ledger_path)[1] == []
        found = verify_ledger_file(settings.ledger_path, deep=True)[1]
        assert "file" in {finding.part for finding in found}

    def test_a_torn_page_is_named_without_a_traceback(self, ledger: Ledger, settings: StorageSettings) -> None:
        for _ in range(30):
            record(ledger, STREAM, *PAYLOADS)
        ledger.close()
        content = bytearray(settings.ledger_path.read_bytes())
        content[200_000:230_000] = b"\x5a" * 30_000
        settings.ledger_path.write_bytes(content)
        found = verify_ledger_file(settings.ledger_path)[1]
        assert {"file", "ledger"} >= {finding.part for finding in found} != set()

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (None, "there is no ledger at"),
            (b"", "is empty: start the service once"),
            (b"not a database at all" * 100, "cannot be opened as a ledger"),
        ],
    )
    def test_what_is_no_ledger_is_said(self, settings: StorageSettings, content: bytes | None, match: str) -> None:
        settings.ledger_path.unlink()
        if content is not None:
            settings.ledger_path.write_bytes(content)
        for ask in (verify_storage, lambda given: head_of(given.ledger_path)):
            with pytest.raises(LedgerSchemaError, match=match):
                ask(settings)
        assert settings.ledger_path.exists() == (content is not None)

    def test_a_database_of_something_else_is_said(self, settings: StorageSettings) -> None:
        settings.ledger_path.unlink()
        with closing(DRIVER.connect(settings.ledger_path)) as connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
        with pytest.raises(LedgerSchemaError, match="a database of something else"):
            verify_storage(settings)


def test_an_erasure_that_comes_in_between_is_no_damage(
    ledger: Ledger, settings: StorageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        for stream in (StreamId("bob", "c"), STREAM):
            record_turn(ledger, stream)
    monkeypatch.setattr("domain.verification._PAGE_EVENTS", 2)
    read = type(ledger.reader).stored_after
    erased: list[object] = []

    def then_erase(reader: object, after: int, limit: int) -> object:
        page = read(reader, after, limit)  # type: ignore[arg-type]  # every reader here is a LedgerReader
        if after == 2 and not erased:
            erased.append(record(ledger, user_stream("bob"), UserErased(events=4, conversations=1)))
            with closing(DRIVER.connect(ledger.path, isolation_level=None, timeout=10)) as connection:
                connection.execute(
                    "UPDATE events SET payload = '{}', salt = '', user_id = 'erased:1', conversation_id = "
                    "CASE conversation_id WHEN '' THEN '' ELSE 'erased:2' END WHERE user_id = 'bob'"
                )
        return page

    monkeypatch.setattr("domain.ledger_reader.LedgerReader.stored_after", then_erase)
    head, findings = verify_ledger_file(settings.ledger_path)
    assert erased
    assert (head.position, findings) == (7, [])


def test_a_ledger_forged_from_the_first_event_on_does_not_fill_the_screen(
    ledger: Ledger, settings: StorageSettings
) -> None:
    for _ in range(30):
        record(ledger, STREAM, activated(), activated(), activated(), activated())
    with closing(DRIVER.connect(ledger.path, isolation_level=None)) as connection:
        connection.executescript("DROP TRIGGER events_no_update; UPDATE events SET recorded_at = '';")
    findings = verify_ledger_file(settings.ledger_path)[1]
    assert len([finding for finding in findings if finding.part == "ledger"]) == FINDINGS_MAX
    assert next(finding.position for finding in findings if finding.part == "ledger") == 1
    assert len(all_stored(ledger)) == 120

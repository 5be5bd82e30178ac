"""Whatever happens to the files, after the next event or start they match the ledger."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from domain.identity import SYSTEM_STREAM, StreamId, user_stream
from domain.ledger import Ledger
from projections.durable import boot_id
from projections.follower import Follower
from projections.mirror import event_file
from projections.mirror import mirror as mirror_module
from projections.mirror.event_file import event_of
from projections.mirror.mirror import Mirror, mirror_path
from tests.ledgers import (
    ROOT,
    STREAM,
    activated,
    all_stored,
    new_ledger_file,
    one_of_each,
    opened,
    record,
    record_turn,
    until,
)

STREAMS = (
    STREAM,
    StreamId("ann", "a/b"),
    StreamId("ann", "a_b"),
    StreamId("Ann", "trip"),
    StreamId("../x", "../../etc/passwd"),
    StreamId("用户", "对话"),
    StreamId("x" * 10_000, "y" * 10_000),
    StreamId("x" * 9_999 + "z", "y" * 9_999 + "z"),
    StreamId("user", "user"),
    StreamId(".", ".."),
    user_stream("ann"),
    SYSTEM_STREAM,
)


async def to_head(mirror: Mirror) -> None:
    while await mirror.advance():
        pass


def files_of(storage_dir: Path) -> list[Path]:
    return sorted(
        path for folder in ("users", "system") for path in (storage_dir / folder).rglob("*") if path.is_file()
    )


def assert_whole(storage_dir: Path, ledger: Ledger, streams: Sequence[StreamId] | None = None) -> None:
    """Check that every conversation has a file with exactly its events, and that there are no other files."""
    mirror = Mirror(ledger.reader, storage_dir)
    expected: dict[Path, list[object]] = {}
    for row in all_stored(ledger):
        stream = StreamId(row.user_id, row.conversation_id)
        if streams is None or stream in streams:
            expected.setdefault(mirror.path(stream), []).append(row)
    found = {
        path: [event_of(line) for line in path.read_bytes().decode().split("\n")[:-1]]
        for path in (files_of(storage_dir) if streams is None else expected)
    }
    assert found == expected
    assert all(path.read_bytes().endswith(b"\n") for path in found)


class TestFiles:
    async def test_each_conversation_has_its_own_file_inside_the_storage(
        self, ledger: Ledger, storage_dir: Path
    ) -> None:
        for stream in STREAMS:
            record(ledger, stream, *one_of_each())
        await to_head(Mirror(ledger.reader, storage_dir))
        assert_whole(storage_dir, ledger)
        assert len(files_of(storage_dir)) == len(STREAMS)

    def test_the_paths_are_where_the_readme_says(self, ledger: Ledger) -> None:
        mirror = Mirror(ledger.reader, Path("s"))
        assert mirror.path(StreamId("a/b", "c")) == Path("s/users/a%2fb/conversations/c.jsonl")
        assert mirror.path(user_stream("ann")) == Path("s/users/ann/user.jsonl")
        assert mirror.path(SYSTEM_STREAM) == Path("s/system/events.jsonl")

    async def test_it_follows_appends_to_many_conversations(
        self, ledger: Ledger, storage_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror_module, "_BATCH_EVENTS", 7)
        mirror = Mirror(ledger.reader, storage_dir)
        for number in range(40):
            record_turn(ledger, STREAMS[number % 3])
            if number % 5 == 0:
                await to_head(mirror)
        await to_head(mirror)
        assert mirror.checkpoint == 40
        assert_whole(storage_dir, ledger)


class TestRepair:
    async def test_a_file_deleted_while_running_is_whole_with_the_next_event(
        self, ledger: Ledger, storage_dir: Path
    ) -> None:
        mirror = Mirror(ledger.reader, storage_dir)
        for stream in STREAMS[:2] * 3:
            record_turn(ledger, stream)
        await to_head(mirror)
        mirror.path(STREAM).unlink()
        record_turn(ledger, STREAM)
        await to_head(mirror)
        assert_whole(storage_dir, ledger)

    async def test_all_of_users_deleted_while_running(self, ledger: Ledger, storage_dir: Path) -> None:
        mirror = Mirror(ledger.reader, storage_dir)
        for stream in STREAMS[:2] * 3:
            record_turn(ledger, stream)
        await to_head(mirror)
        shutil.rmtree(storage_dir / "users")
        record_turn(ledger, STREAM)
        await to_head(mirror)
        assert_whole(storage_dir, ledger, [STREAM])
        await to_head(Mirror(ledger.reader, storage_dir))
        assert_whole(storage_dir, ledger)

    @pytest.mark.parametrize("restarted", [False, True])
    @pytest.mark.parametrize("damage", ["torn", "zeros", "foreign", "empty", "half", "other"])
    async def test_a_damaged_tail(self, ledger: Ledger, storage_dir: Path, damage: str, restarted: bool) -> None:
        mirror = Mirror(ledger.reader, storage_dir)
        for stream in (STREAM, STREAMS[1]) * 4:
            record_turn(ledger, stream)
        await to_head(mirror)
        path = mirror.path(STREAM)
        content = path.read_bytes()
        path.write_bytes(
            {
                "torn": content[:-5],
                "zeros": content + b"\x00" * 4096,
                "foreign": content + b"a note of mine\n",
                "empty": b"",
                "half": content[: len(content) // 2],
                "other": mirror.path(STREAMS[1]).read_bytes()[: len(content) // 2],
            }[damage]
        )
        if restarted:
            mirror = Mirror(ledger.reader, storage_dir)
        else:
            record_turn(ledger, STREAM)
        await to_head(mirror)
        assert_whole(storage_dir, ledger)

    async def test_a_mirror_ahead_of_a_ledger_from_a_backup_is_written_anew(self, tmp_path: Path) -> None:
        path = new_ledger_file(tmp_path)
        backup = path.read_bytes()
        with opened(path) as ledger:
            for number in range(5):
                record_turn(ledger, STREAM, f"lost {number}")
            await to_head(Mirror(ledger.reader, tmp_path))
        path.write_bytes(backup)
        with opened(path) as ledger:
            for number in range(3):
                record_turn(ledger, STREAM, f"new {number}")
            await to_head(Mirror(ledger.reader, tmp_path))
            assert_whole(tmp_path, ledger)

    @pytest.mark.parametrize("lines", [1, 3])
    async def test_a_file_without_its_first_lines_is_whole_after_the_next_start(
        self, ledger: Ledger, storage_dir: Path, lines: int
    ) -> None:
        for stream in (STREAM, STREAMS[1]) * 5:
            record_turn(ledger, stream)
        mirror = Mirror(ledger.reader, storage_dir)
        await to_head(mirror)
        path = mirror.path(STREAM)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[lines:]))
        await to_head(Mirror(ledger.reader, storage_dir))
        assert_whole(storage_dir, ledger)

    async def test_a_file_from_another_ledger_of_the_same_length_is_written_anew(self, tmp_path: Path) -> None:
        for name in ("mine", "theirs"):
            (tmp_path / name).mkdir()
            with opened(new_ledger_file(tmp_path / name)) as ledger:
                for number in range(3):
                    record_turn(ledger, STREAM, f"{name} {number}")
                mirror = Mirror(ledger.reader, tmp_path / name)
                await to_head(mirror)
        theirs = mirror.path(STREAM).relative_to(tmp_path / "theirs")
        shutil.copyfile(tmp_path / "theirs" / theirs, tmp_path / "mine" / theirs)
        with opened(tmp_path / "mine" / "ledger.sqlite3") as ledger:
            await to_head(Mirror(ledger.reader, tmp_path / "mine"))
            assert_whole(tmp_path / "mine", ledger)

    async def test_a_whole_file_is_not_written_at_start(self, ledger: Ledger, storage_dir: Path) -> None:
        for stream in STREAMS:
            record(ledger, stream, activated())
        await to_head(Mirror(ledger.reader, storage_dir))
        for path in files_of(storage_dir):
            os.utime(path, ns=(1, 1))
        await to_head(Mirror(ledger.reader, storage_dir))
        assert [path.stat().st_mtime_ns for path in files_of(storage_dir)] == [1] * len(STREAMS)

    async def test_the_first_pass_reads_page_by_page_while_the_ledger_grows(
        self, ledger: Ledger, storage_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mirror_module, "_PAGE_CONVERSATIONS", 2)
        monkeypatch.setattr(mirror_module, "_PAGE_EVENTS", 2)
        for stream in STREAMS:
            record(ledger, stream, *one_of_each())
        mirror = Mirror(ledger.reader, storage_dir)
        passes = 0
        while await mirror.advance():
            passes += 1
            if passes <= 5:
                record_turn(ledger, STREAMS[passes])
                record_turn(ledger, StreamId("0", f"{passes}"))  # sorts first: the pass has gone by it
        assert passes > len(STREAMS) / 2
        assert_whole(storage_dir, ledger)

    @pytest.mark.parametrize("boot", [None, "another start of the machine"])
    def test_a_hole_that_a_power_cut_left_is_filled_at_the_next_start(
        self, ledger: Ledger, storage_dir: Path, boot: str | None
    ) -> None:
        for number in range(5):
            record_turn(ledger, STREAM, f"Question {number}?")
        Mirror(ledger.reader, storage_dir).complete()
        path = mirror_path(storage_dir, STREAM)
        content = bytearray(path.read_bytes())
        at = content.index(b"Question 2")
        content[at : at + 300] = bytes(300)
        path.write_bytes(content)
        noted = storage_dir / "mirror.boot"
        noted.unlink() if boot is None else noted.write_text(boot)
        Mirror(ledger.reader, storage_dir).complete()
        assert_whole(storage_dir, ledger)
        assert noted.read_text() == boot_id()

    def test_the_files_are_read_whole_once_for_each_start_of_the_machine(
        self, ledger: Ledger, storage_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record_turn(ledger, STREAM)
        read: list[Path] = []

        def has_hole(path: Path) -> bool:
            read.append(path)
            return False

        monkeypatch.setattr(event_file, "has_hole", has_hole)
        for _ in range(3):
            Mirror(ledger.reader, storage_dir).complete()
        assert len(read) <= 1

    def test_killed_at_any_point_it_is_whole_after_the_next_start(self, ledger: Ledger, storage_dir: Path) -> None:
        for number in range(150):
            record_turn(ledger, STREAMS[number % 5], assistant="x" * 3000)
        for delay_s in (0.0, 0.03, 0.11):
            with subprocess.Popen(
                [sys.executable, "-m", "tests.projections.mirroring", str(storage_dir)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            ) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "at work\n"
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(delay_s)
                process.kill()
            asyncio.run(to_head(Mirror(ledger.reader, storage_dir)))
            assert_whole(storage_dir, ledger)


class TestConcurrency:
    async def test_two_mirrors_of_one_ledger_write_each_event_once(self, ledger: Ledger, storage_dir: Path) -> None:
        mirrors = [Mirror(ledger.reader, storage_dir) for _ in range(3)]
        for number in range(60):
            record_turn(ledger, STREAMS[number % 2])
            if number % 3 == 0:
                await asyncio.gather(*(mirror.advance() for mirror in mirrors))
        await asyncio.gather(*(to_head(mirror) for mirror in mirrors))
        assert_whole(storage_dir, ledger)

    async def test_a_cancelled_call_may_end_beside_its_successor(self, ledger: Ledger, storage_dir: Path) -> None:
        for number in range(60):
            record_turn(ledger, STREAMS[number % 3])
        for _ in range(5):
            call = asyncio.create_task(Mirror(ledger.reader, storage_dir).advance())
            await asyncio.sleep(0)
            call.cancel()
        await to_head(Mirror(ledger.reader, storage_dir))
        assert_whole(storage_dir, ledger)

    async def test_appends_by_another_process_are_mirrored(self, ledger: Ledger, storage_dir: Path) -> None:
        follower = Follower(ledger, Mirror(ledger.reader, storage_dir), poll_s=0.01)
        following = asyncio.create_task(follower.run())
        await follower.caught_up()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.domain.appender", str(ledger.path), "ann", "trip", "20", cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 0
        path = Mirror(ledger.reader, storage_dir).path(STREAM)
        # Only the poll can notice it: this process commits nothing.
        await until(lambda: path.exists() and path.read_bytes().count(b"\n") >= 20)
        following.cancel()
        await asyncio.wait([following])
        assert_whole(storage_dir, ledger)

    async def test_no_file_is_touched_on_the_event_loop(
        self, ledger: Ledger, storage_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads: set[int] = set()
        for name in ("append", "replace", "read_tail"):
            real = getattr(event_file, name)

            def noted(*arguments: object, real: object = real) -> object:
                threads.add(threading.get_ident())
                return real(*arguments)  # type: ignore[operator]

            monkeypatch.setattr(event_file, name, noted)
        record_turn(ledger, STREAM)
        mirror = Mirror(ledger.reader, storage_dir)
        await to_head(mirror)
        record_turn(ledger, STREAM)
        await to_head(mirror)
        assert threads
        assert threading.get_ident() not in threads


class MirrorMachine(RuleBasedStateMachine):
    """Appends, deletions, truncations and restarts in any order; after repair the mirror equals the ledger."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.storage_dir = Path(self.folder.name)
        self.ledger = Ledger(new_ledger_file(self.storage_dir))
        self.mirror = Mirror(self.ledger.reader, self.storage_dir)
        self.damaged: set[StreamId] = set()

    streams = st.sampled_from((STREAM, StreamId("ann", "a/b"), StreamId("bob", "c"), SYSTEM_STREAM))

    def settle(self) -> None:
        asyncio.run(to_head(self.mirror))

    @rule(stream=streams, count=st.integers(2, 5))
    def append(self, stream: StreamId, count: int) -> None:
        for _ in range(count):
            record_turn(self.ledger, stream)
        self.damaged.discard(stream)

    @rule(stream=streams)
    def delete(self, stream: StreamId) -> None:
        self.settle()
        self.mirror.path(stream).unlink(missing_ok=True)
        self.damaged.add(stream)

    @rule(stream=streams, cut_bytes=st.integers(1, 1500))
    def truncate(self, stream: StreamId, cut_bytes: int) -> None:
        self.settle()
        path = self.mirror.path(stream)
        if path.exists():
            os.truncate(path, max(0, path.stat().st_size - cut_bytes))
            self.damaged.add(stream)

    @rule()
    def delete_users(self) -> None:
        self.settle()
        shutil.rmtree(self.storage_dir / "users", ignore_errors=True)
        self.damaged |= {STREAM, StreamId("ann", "a/b"), StreamId("bob", "c")}

    @rule()
    def restart(self) -> None:
        self.mirror = Mirror(self.ledger.reader, self.storage_dir)
        self.damaged.clear()

    @rule(stream=streams, cut_bytes=st.integers(1, 1500))
    def lose_power(self, stream: StreamId, cut_bytes: int) -> None:
        self.truncate(stream, cut_bytes)
        self.restart()

    @rule()
    def half_a_step(self) -> None:
        asyncio.run(self.one_step())

    async def one_step(self) -> None:
        await self.mirror.advance()

    @invariant()
    def every_undamaged_conversation_is_whole(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.settle()
        streams = {StreamId(row.user_id, row.conversation_id) for row in all_stored(self.ledger)} - self.damaged
        assert_whole(self.storage_dir, self.ledger, sorted(streams, key=str))

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


TestAnyHistory = MirrorMachine.TestCase
TestAnyHistory.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

"""``opm verify``, ``backup`` and ``restore``: what they print, and how they end."""

from __future__ import annotations

import errno
import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from domain.sqlite import DRIVER
from projections.mirror.mirror import Mirror
from service.cli.shell import BAD_ARGUMENTS, DONE, FAILED
from tests.ledgers import STREAM, all_stored, new_ledger_file, opened, record_turn
from tests.service.cli.conftest import Opm
from tests.service.running import running
from tests.upstream import ScriptedUpstream


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    return shelf


def tamper(storage: Path) -> None:
    with closing(DRIVER.connect(storage / "ledger.sqlite3", isolation_level=None)) as connection:
        (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'events_no_update'").fetchone()
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute("UPDATE events SET payload = replace(payload, 'Lisbon', 'Porto') WHERE position = 2")
        connection.execute(sql)


@pytest.fixture
def told(storage: Path) -> Path:
    with opened(storage / "ledger.sqlite3") as ledger:
        for _ in range(3):
            record_turn(ledger, STREAM)
    return storage


class TestVerify:
    def test_an_empty_ledger_is_well(self, opm: Opm) -> None:
        ran = opm("verify")
        assert (ran.status, ran.err) == (DONE, "")
        assert ran.out.splitlines()[-1] == "all is well"

    def test_a_changed_event_is_the_first_line(self, opm: Opm, told: Path) -> None:
        tamper(told)
        ran = opm("verify")
        assert ran.status == FAILED
        assert ran.out.splitlines()[0] == "ledger, event 2: its payload was changed"
        ran = opm("verify", "--json")
        assert ran.status == FAILED
        found = json.loads(ran.out)
        assert found["well"] is False
        assert (found["findings"][0]["part"], found["findings"][0]["position"]) == ("ledger", 2)
        assert "Porto" not in ran.out

    def test_a_head_is_printed_and_asked_for_again(self, opm: Opm, told: Path) -> None:
        head = opm("verify", "--head").out.strip()
        assert head.startswith("3:sha256:")
        assert json.loads(opm("verify", "--head", "--json").out)["head"] == head
        with opened(told / "ledger.sqlite3") as ledger:
            record_turn(ledger, STREAM)
        found = json.loads(opm("verify", "--json", "--since", head).out)["findings"]
        assert {finding["part"] for finding in found} == {"mirror"}  # no service has mirrored these turns
        shutil.rmtree(told)
        told.mkdir()
        with opened(new_ledger_file(told)) as ledger:
            for _ in range(5):
                record_turn(ledger, STREAM)
        ran = opm("verify", "--since", head)
        assert ran.status == FAILED
        assert ran.out.splitlines()[0].startswith("ledger, event 3: it is not the one of the head noted earlier")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--since", "3"], "--since = '3': give POSITION:HASH"),
            (["--head", "--deep"], "--head = 'with --since or --deep'"),
            (["--no-such-option"], "no-such-option"),
        ],
    )
    def test_bad_arguments_are_two(self, opm: Opm, arguments: list[str], said: str) -> None:
        ran = opm("verify", *arguments)
        assert ran.status == BAD_ARGUMENTS
        assert said in ran.err

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "there is no ledger at"),
            (b"", "ledger.sqlite3 is empty"),
            (b"no database" * 1000, "ledger.sqlite3 cannot be opened as a ledger (file is not a database)"),
        ],
    )
    @pytest.mark.parametrize("command", [["verify"], ["verify", "--head"], ["verify", "--deep", "--json"]])
    def test_what_is_no_ledger_is_one_line(
        self, opm: Opm, storage: Path, command: list[str], content: bytes | None, said: str
    ) -> None:
        (storage / "ledger.sqlite3").unlink()
        if content is not None:
            (storage / "ledger.sqlite3").write_bytes(content)
        ran = opm(*command)
        assert (ran.status, len(ran.err.splitlines())) == (FAILED, 1)
        assert said in ran.err
        if "--json" in command:
            error = json.loads(ran.out)["error"]
            assert (said in error["message"], error["exit_status"]) == (True, FAILED)
        else:
            assert ran.out == ""


class TestBackupAndRestore:
    def test_there_and_back(self, opm: Opm, told: Path, shelf: Path) -> None:
        head = opm("verify", "--head").out.strip()
        ran = opm("backup", str(shelf / "copy.sqlite3"))
        assert ran.status == DONE
        assert ran.out.strip() == f"{shelf / 'copy.sqlite3'}: 3 events, head {head}"
        with opened(told / "ledger.sqlite3") as ledger:
            record_turn(ledger, STREAM)
        ran = opm("restore", str(shelf / "copy.sqlite3"), "--json")
        assert ran.status == DONE
        restored = json.loads(ran.out)
        assert (restored["restored"], restored["head"]) == (True, head)
        assert opm("verify", "--head").out.strip() == head
        assert opm("verify").status == DONE, "the files of the mirror are there again"
        with opened(Path(restored["put_aside"]) / "ledger.sqlite3") as ledger:
            assert ledger.reader.head_position() == 4

    def test_files_that_cannot_be_written_are_left_to_the_next_start(
        self, opm: Opm, told: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_mirror: Mirror) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        assert opm("backup", str(shelf / "copy.sqlite3")).status == DONE
        monkeypatch.setattr(Mirror, "complete", full)
        ran = opm("restore", str(shelf / "copy.sqlite3"), "--json")
        assert (ran.status, json.loads(ran.out)["restored"]) == (DONE, True)
        assert "No space left on device" in ran.err

    def test_a_backup_is_not_written_over(self, opm: Opm, told: Path, shelf: Path) -> None:
        for arguments, status in (([], DONE), ([], BAD_ARGUMENTS), (["--force", "--json"], DONE)):
            ran = opm("backup", str(shelf / "copy.sqlite3"), *arguments)
            assert ran.status == status, ran.err
        assert json.loads(ran.out)["path"] == str(shelf / "copy.sqlite3")

    def test_a_mirror_with_a_hole_is_named_and_nothing_is_written(self, opm: Opm, told: Path) -> None:
        ran = opm("restore", "--from-mirror")
        assert ran.status == FAILED
        assert ran.out.strip() == "mirror: there is no event in any file of the mirror"
        assert ran.err.strip() == "opm: the mirror does not give a whole ledger: nothing was written"
        assert json.loads(opm("restore", "--from-mirror", "--json").out)["restored"] is False
        with opened(told / "ledger.sqlite3") as ledger:
            assert len(all_stored(ledger)) == 3

    @pytest.mark.parametrize(
        "arguments",
        [[], ["a.sqlite3", "--from-mirror"], ["a.sqlite3", "--since", "1:x"], ["--from-mirror", "--since", "x"]],
    )
    def test_bad_arguments_are_two(self, opm: Opm, arguments: list[str]) -> None:
        assert opm("restore", *arguments).status == BAD_ARGUMENTS

    @pytest.mark.parametrize(
        ("content", "status", "said"),
        [
            (None, BAD_ARGUMENTS, "there is no such file"),
            (b"", FAILED, "copy.sqlite3 is empty"),
            (b"no database" * 1000, FAILED, "copy.sqlite3 cannot be opened as a ledger"),
        ],
    )
    def test_what_is_no_backup_is_one_line(
        self, opm: Opm, told: Path, shelf: Path, content: bytes | None, status: int, said: str
    ) -> None:
        if content is not None:
            (shelf / "copy.sqlite3").write_bytes(content)
        ran = opm("restore", str(shelf / "copy.sqlite3"))
        assert (ran.status, len(ran.err.splitlines())) == (status, 1)
        assert said in ran.err


def test_a_service_is_verified_and_backed_up_while_it_runs_and_restored_when_it_has_ended(
    opm: Opm, storage: Path, shelf: Path
) -> None:
    with ScriptedUpstream() as upstream:
        with running(upstream, storage) as service:
            service.client.tell("My cat Miso only eats tuna.", "ann", "one")
            service.settle()
            assert opm("verify").status == DONE
            assert opm("backup", str(shelf / "copy.sqlite3")).status == DONE
            service.client.tell("我的狗叫布鲁诺。", "ann", "二")
            service.settle()
            assert opm("verify").status == DONE
            ran = opm("restore", str(shelf / "copy.sqlite3"))
            assert (ran.status, "is in use by a service" in ran.err) == (FAILED, True)
        head = opm("verify", "--head").out
        # First from the files alone, where all was mirrored; then back to the day of the backup.
        assert opm("verify").status == DONE
        assert opm("restore", "--from-mirror").status == DONE
        assert opm("verify", "--head").out == head
        assert opm("verify").status == DONE
        assert opm("restore", str(shelf / "copy.sqlite3")).status == DONE
        with running(upstream, storage) as service:
            service.settle()
            assert opm("verify").status == DONE
            assert "tuna" in service.client.tell("What does my cat Miso eat?", "ann", "three").text
            assert "布鲁诺" not in service.client.tell("我的狗叫什么名字？", "ann", "四").text
            service.settle()
            assert opm("verify").status == DONE

"""``opm`` in this process, on a storage folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cli.main import main
from tests.ledgers import new_ledger_file


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


Opm = Callable[..., Ran]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "storage"
    folder.mkdir()
    new_ledger_file(folder)
    monkeypatch.setenv("STORAGE_DIR", str(folder))
    return folder


@pytest.fixture
def opm(storage: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Opm:
    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["opm", *arguments])
        monkeypatch.delenv("COLUMNS", raising=False)  # of whatever terminal the tests run in
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        return Ran(int(ended.value.code or 0), printed.out, printed.err)

    return run

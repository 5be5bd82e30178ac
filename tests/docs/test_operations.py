"""What docs/operations.md tells an operator to run exists, and its units say what systemd understands."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.main import _COMMANDS
from tests.ledgers import ROOT

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
UNITS = dict(re.findall(r"`/etc/systemd/system/([\w.-]+)`:\n\n```ini\n(.*?)```", TEXT, re.DOTALL))


NAMED = re.findall(r"(?<!-u )(?<![\w/])opm ((?:keys )?[a-z]+)([^\n`|#]*)", TEXT)
"""Each command with its arguments."""


def test_every_command_is_one() -> None:
    assert NAMED
    assert {command for command, _ in NAMED} <= {command.name for command in _COMMANDS}


def test_every_option_is_one() -> None:
    options: dict[str, set[str]] = {}
    for command, arguments in NAMED:
        options.setdefault(command, set()).update(re.findall(r"(?<!\S)--[a-z-]+", arguments))
    for command, named in options.items():
        helped = subprocess.run(
            [sys.executable, "-m", "service.cli", *command.split(), "--help"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert named <= set(re.findall(r"--[a-z-]+", helped.stdout)), command


def test_the_units_are_complete() -> None:
    assert {Path(name).suffix for name in UNITS} == {".service", ".timer"}
    for name, content in UNITS.items():
        parsed = configparser.ConfigParser(strict=False, interpolation=None)
        parsed.optionxform = str  # type: ignore[assignment, method-assign]  # names of systemd keep their capitals
        parsed.read_string(content)
        assert "Unit" in parsed, name
    assert "python -m service " in UNITS["openpersistentmemory.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_them(tmp_path: Path) -> None:
    for name, content in UNITS.items():
        here = content.replace("/opt/openpersistentmemory/.venv/bin/python", sys.executable)
        (tmp_path / name).write_text(here.replace("User=opm\n", ""))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "openpersistentmemory" in line]
    assert complaints == []

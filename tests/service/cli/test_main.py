"""Arguments that are not understood are said in one line, and every command shows an example of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.main import _COMMANDS, main
from tests.ledgers import ROOT


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["python -m service.cli", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize("arguments", [["nope"], ["recall"], ["recall", "-u", "a", "-n", "x", "q"], ["verify", "--no"]])
def test_bad_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert ran(monkeypatch, *arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("opm: ")
    assert said.count("\n") == 1
    assert "--help`)" in said


@pytest.mark.parametrize("arguments", [["nope"], ["recall"], ["verify", "--no"], ["users", "-n", "x"]])
def test_under_json_they_are_the_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert ran(monkeypatch, *arguments, "--json") == 2
    printed = capsys.readouterr()
    error = json.loads(printed.out)["error"]
    assert printed.err == f"opm: {error['message']}\n"
    assert error["exit_status"] == 2


def test_every_command_gives_one_document(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in _COMMANDS:
        ran(monkeypatch, *command.name.split(), "--help")
        assert "--json" in capsys.readouterr().out, command.name


def test_a_shell_completes_names_of_commands(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        asked = {
            "_OPM_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": "opm ver",
            "COMP_CWORD": "1",
            "_TYPER_COMPLETE_ARGS": "opm ver",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "PATH": os.environ["PATH"],
            "STORAGE_DIR": str(tmp_path / "nothing"),
        }
        command = [sys.executable, "-m", "service.cli"]
        done = subprocess.run(command, env=asked, cwd=ROOT, capture_output=True, text=True, check=False)
        assert "verify" in done.stdout, done.stderr
        assert "backup" not in done.stdout


@pytest.mark.parametrize("asked", ["-h", "--help"])
@pytest.mark.parametrize("name", [command.name for command in _COMMANDS])
def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, asked: str) -> None:
    assert not ran(monkeypatch, *name.split(), asked)
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: opm {name} ")
    assert f"Example: opm {name} " in said

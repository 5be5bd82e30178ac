"""Arguments that are not understood are said in one line, and every command shows an example of itself."""

from __future__ import annotations

import sys

import pytest

from service.cli.main import _COMMANDS, main


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


@pytest.mark.parametrize("name", [command.name for command in _COMMANDS])
def test_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert not ran(monkeypatch, name, "--help")
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: opm {name} ")
    assert f"Example: opm {name} " in said

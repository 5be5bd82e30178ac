"""Imports point one way, and the contracts that say so notice a wrong one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ledgers import ROOT

FLOORS = ("domain", "projections", "service", "frontend", "migrations")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False)


def test_the_import_contracts_hold() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("domain/clock.py", "import projections.follower"),
        ("domain/clock.py", "import fastapi"),
        ("domain/clock.py", "import faiss"),
        ("projections/follower.py", "import service"),
        ("frontend/__init__.py", "import domain.events"),
        ("service/__init__.py", "import frontend"),
        ("service/settings.py", "import service.turn"),
        ("service/turn.py", "import service.cli"),
        ("service/launch/supervisor.py", "import service.local_models"),
        ("domain/events.py", "import domain.ledger"),
        ("domain/prompt.py", "import domain.sqlite"),
    ],
)
def test_a_wrong_import_breaks_a_contract(tmp_path: Path, module: str, line: str) -> None:
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n{line}\n")
    run = lint_imports(tmp_path)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "BROKEN" in run.stdout

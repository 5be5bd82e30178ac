"""The environment of each client: a virtual environment or a folder of packages, made once and kept."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True)
class PythonEnvironment:
    """A virtual environment with these packages; the first one's version is the client's."""

    name: str
    packages: tuple[str, ...]

    def command(self, root: Path, program: str) -> list[str]:
        return [str(self._bin(root) / "python"), str(PROGRAMS / program)]

    def make(self, root: Path) -> None:
        """Install what is missing. Raises `subprocess.CalledProcessError`."""
        if not (self._bin(root) / "python").exists():
            _make_venv(root / self.name)
        if not self.version(root):
            # pip takes many minutes to choose among the versions that LiteLLM's proxy and Open WebUI allow.
            if not (root / "uv" / "bin" / "uv").exists():
                _make_venv(root / "uv")
                _run(str(root / "uv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")
            python = str(self._bin(root) / "python")
            _run(str(root / "uv" / "bin" / "uv"), "pip", "install", "--quiet", "--python", python, *self.packages)

    def version(self, root: Path) -> str:
        package = self.packages[0].partition("[")[0].partition(">")[0]
        for site in (root / self.name / "lib").glob("python*/site-packages"):
            for found in importlib.metadata.distributions(name=package, path=[str(site)]):
                return found.version
        return ""

    def _bin(self, root: Path) -> Path:
        return root / self.name / "bin"


@dataclass(frozen=True)
class NodeEnvironment:
    """A folder of packages. A program has to stand beside them, so it is linked there."""

    package: str
    name: str = "node"
    packages: tuple[str, ...] = ("openai", "ai", "@ai-sdk/openai", "@ai-sdk/openai-compatible", "zod")

    def command(self, root: Path, program: str) -> list[str]:
        for each in (program, "steps.mjs"):
            (root / self.name / each).write_bytes((PROGRAMS / each).read_bytes())
        return ["node", str(root / self.name / program)]

    def make(self, root: Path) -> None:
        """Install what is missing. Raises `subprocess.CalledProcessError`."""
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        if not self.version(root):
            (folder / "package.json").write_text('{"private": true}')
            subprocess.run(
                ["nice", "npm", "install", "--no-audit", "--no-fund", *self.packages], cwd=folder, check=True
            )

    def version(self, root: Path) -> str:
        manifest = root / self.name / "node_modules" / self.package / "package.json"
        return str(json.loads(manifest.read_text())["version"]) if manifest.exists() else ""


Environment = PythonEnvironment | NodeEnvironment


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment in which a client runs: none of the developer's keys and proxies."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }


def _make_venv(folder: Path) -> None:
    _run(sys.executable, "-m", "venv", str(folder))


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(["nice", *command], cwd=cwd, check=True)

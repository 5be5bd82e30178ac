"""Run ``opm`` in the test's own process: arguments in, output and exit status out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.cli.main import main
from tests.upstream import ScriptedUpstream


@dataclass(frozen=True)
class Ran:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(storage_dir: Path, upstream: ScriptedUpstream | None = None, **more: str) -> dict[str, str]:
    """Return the variables that a command reads; without ``upstream`` there are no endpoints in them."""
    given = {"STORAGE_DIR": str(storage_dir), **more}
    if upstream is not None:
        given |= {"EMB_BASE_URL": upstream.base_url, "EMB_MODEL": upstream.embedding_model}
        given |= {"LLM_BASE_URL": upstream.base_url, "LLM_MODEL": upstream.chat_model}
    return given | more


@contextlib.contextmanager
def _only(variables: Mapping[str, str]) -> Iterator[None]:
    names = (
        "STORAGE_DIR",
        "EMB_",
        "LLM_",
        "GATE",
        "USE_RERANK",
        "RERANK",
        "OPENAI_",
        "COLUMNS",
        "TIMEZONE",
        "USER_TIMEZONES",
    )
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(names)]:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def opm(variables: Mapping[str, str], *arguments: str) -> Ran:
    """Run one command with these variables set and those of the machine hidden."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["opm", *arguments]
    status: object = 0
    try:
        with _only(variables), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        sys.argv = argv
    assert isinstance(status, int)
    return Ran(status, out.getvalue(), err.getvalue())

"""The process harness tells a service that is up from one that is not, and stops it in both ways."""

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from tests.processes import DidNotStartError, service_process

app = FastAPI()


@app.get("/health")
def health() -> JSONResponse:
    return JSONResponse(
        {"env": dict(os.environ), "cwd": [path.name for path in Path.cwd().iterdir()], "pid": os.getpid()}
    )


def ask(base_url: str) -> Any:
    with urllib.request.build_opener().open(f"{base_url}/health") as answer:
        return json.load(answer)


def test_the_environment_is_clean_and_the_directory_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the developer's own")
    with service_process({"STORAGE_DIR": "there"}, app="tests.test_processes:app") as service:
        seen = ask(service.base_url)
    assert seen["env"]["STORAGE_DIR"] == "there"
    assert set(seen["env"]) - {"LC_CTYPE"} <= {"PATH", "HOME", "STORAGE_DIR"}
    assert seen["cwd"] == []


def test_it_restarts_on_its_port_after_either_end_and_keeps_its_log() -> None:
    with service_process({"STEP": "1"}, app="tests.test_processes:app") as service:
        first = service.pid
        assert ask(service.base_url)["pid"] == first
        service.kill9()
        service.restart({"STEP": "2"})
        assert ask(service.base_url)["env"]["STEP"] == "2"
        assert service.pid != first
        service.terminate()
        assert service.log().count("Started server process") == 2
        assert service.log().count("Finished server process") == 1
        with pytest.raises(RuntimeError, match="does not run"):
            service.kill9()


def test_a_service_that_does_not_come_up_fails_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(DidNotStartError, match=r"ended with 3[\s\S]*tests\.absent"),
        service_process({}, app="tests.absent:app", cwd=tmp_path),
    ):
        raise AssertionError("it cannot have started")

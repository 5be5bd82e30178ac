"""The launcher over tiny real programs in the places of the API and the page."""

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import httpx2
import pytest

from domain.prompt import NOTES_LAYOUT, laid_out
from domain.prompts import is_chinese, load_prompts
from service.launch.command import (
    CHAT_PROFILE,
    EMBEDDED_PROFILE,
    EMBEDDINGS_PROFILE,
    api_environment,
    machine_zone,
    main,
)
from service.local_models.__main__ import main as serve_models
from tests.memories import memory

# What `python -m service.launch` does, with the two commands replaced.
DRIVER = """
import sys
from service.launch import command

def stub(port, workers=1):
    return [sys.executable, "-m", "tests.stub_program", str(port)]

command._api_command = command._page_command = stub
sys.exit(command.main(sys.argv[1:]))
"""
WITH_REAL_API = DRIVER.replace("command._api_command = ", "")
ROOT = Path(__file__).parents[3]
ENDPOINTS = {
    "LLM_BASE_URL": "http://127.0.0.1:1/v1",
    "LLM_MODEL": "chat",
    "EMB_BASE_URL": "http://127.0.0.1:2/v1",
    "EMB_MODEL": "embedding",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **ENDPOINTS, "PYTHONPATH": str(ROOT), **variables}


class Launched:
    def __init__(self, folder: Path, driver: str = DRIVER, **variables: str) -> None:
        self.ports = (free_port(), free_port())
        self.process = subprocess.Popen(
            [sys.executable, "-c", driver],
            env=environment(PORT=str(self.ports[0]), UI_PORT=str(self.ports[1]), **variables),
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def said(self, last: str) -> str:
        """Standard output up to `last`."""
        assert self.process.stdout is not None
        return read_until(self.process.stdout, last)

    def logged(self, last: str, times: int) -> str:
        """Standard error up to the time that `last` has come so often."""
        assert self.process.stderr is not None
        return read_until(self.process.stderr, last, times)

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def wait_until_nobody_listens(self) -> None:
        for port in self.ports:
            for _attempt in range(200):
                with socket.socket() as client:
                    if client.connect_ex(("127.0.0.1", port)) != 0:
                        break
                time.sleep(0.05)
            else:
                raise AssertionError(f"something still listens on {port}")


def read_until(stream: IO[bytes], last: str, times: int = 1) -> str:
    output = b""
    while output.count(last.encode()) < times:
        assert select.select([stream], [], [], 60)[0], f"no more output after {output!r}"
        piece = os.read(stream.fileno(), 4096)
        assert piece, f"the launcher ended after {output!r}"
        output += piece
    return output.decode()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    running = Launched(tmp_path)
    yield running
    running.process.kill()
    running.process.communicate()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_both_addresses_and_a_signal_stops_everything(launched: Launched, signum: int) -> None:
    api, page = launched.ports
    said = launched.said("Ctrl-C")
    assert f"http://127.0.0.1:{api}/v1" in said
    assert f"http://127.0.0.1:{page}" in said
    launched.process.send_signal(signum)
    assert launched.process.wait(60) == 0
    assert launched.errors() == "Stopped.\n"
    launched.wait_until_nobody_listens()


def test_a_program_that_ends_is_named_and_stops_the_other(launched: Launched) -> None:
    launched.said("Ctrl-C")
    with pytest.raises(httpx2.TransportError):
        httpx2.get(f"http://127.0.0.1:{launched.ports[0]}/end")
    assert launched.process.wait(60) == 1
    assert launched.errors() == "The API ended with exit code 3; everything was stopped.\n"
    launched.wait_until_nobody_listens()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_no_program_outlives_a_launcher_that_was_killed(launched: Launched) -> None:
    launched.said("Ctrl-C")
    launched.process.kill()
    launched.process.wait()
    launched.wait_until_nobody_listens()


def test_it_ends_with_its_parent_when_told_so(tmp_path: Path) -> None:
    variables = environment(PORT=str(free_port()), UI_PORT=str(free_port()))
    starter = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-c', sys.argv[1], '--with-parent']\n"
        "child = subprocess.Popen(command, stdout=subprocess.PIPE)\n"
        "for line in child.stdout:\n"
        "    if b'Ctrl-C' in line:\n"
        "        os._exit(0)\n"
        "sys.exit('the launcher ended by itself')\n"
    )
    # Standard error stays open as long as anyone of the family holds it.
    result = subprocess.run(
        [sys.executable, "-c", starter, DRIVER],
        env=variables,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        check=True,
    )
    assert result.stderr == b"Stopped.\n"


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.launch", *arguments],
        env=environment(**variables),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("variable", ["PORT", "UI_PORT"])
def test_a_busy_port_is_said_with_the_variable_that_changes_it(variable: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ports = {"PORT": str(free_port()), "UI_PORT": str(free_port()), variable: str(port)}
        result = run(tmp_path, **ports)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Port {port} on 127.0.0.1 is taken: set {variable} to a free one")
    assert result.stderr.count("\n") == 1


def test_two_busy_ports_are_said_at_once(tmp_path: Path) -> None:
    with socket.socket() as first, socket.socket() as second:
        for taken in (first, second):
            taken.bind(("127.0.0.1", 0))
            taken.listen()
        result = run(tmp_path, PORT=str(first.getsockname()[1]), UI_PORT=str(second.getsockname()[1]))
    assert result.returncode == 1
    assert [line.split(": set ")[1].split()[0] for line in result.stderr.splitlines()] == ["PORT", "UI_PORT"]


def test_a_bad_setting_of_the_service_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    result = run(tmp_path, LLM_BASE_URL="", EMB_BASE_URL="", GATE="sometimes")
    assert result.returncode == 1
    assert result.stderr.startswith("GATE = 'sometimes' (")
    assert result.stderr.count("\n") == 1


def test_a_bad_value_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, PORT="ninety")
    assert result.returncode == 1
    assert result.stderr.startswith("PORT = 'ninety': ")
    assert result.stderr.count("\n") == 1


def test_workers_is_how_many_processes_answer(tmp_path: Path) -> None:
    running = Launched(tmp_path, WITH_REAL_API, WORKERS="2")
    try:
        running.logged("Started server process", times=2)
        running.said("Ctrl-C")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(60) == 0
        running.wait_until_nobody_listens()
    finally:
        running.process.kill()
        running.process.communicate()


@pytest.mark.parametrize(("set_zone", "days_of"), [("", "Asia/Kolkata"), ("Europe/Vienna", "Europe/Vienna")])
def test_days_are_those_of_this_machine_unless_timezone_says_otherwise(
    tmp_path: Path, set_zone: str, days_of: str
) -> None:
    running = Launched(tmp_path, WITH_REAL_API, TZ="Asia/Kolkata", TIMEZONE=set_zone)
    try:
        running.said("Ctrl-C")
        listed = httpx2.get(f"http://127.0.0.1:{running.ports[0]}/v1/models", trust_env=False).json()
        assert listed["data"][0]["knobs"]["timezone"] == days_of
    finally:
        running.process.send_signal(signal.SIGTERM)
        running.process.communicate()


@pytest.mark.parametrize(
    ("told", "linked", "zone"),
    [
        ("Europe/Vienna", "Asia/Tokyo", "Europe/Vienna"),
        (":Europe/Vienna", "Asia/Tokyo", "Europe/Vienna"),
        ("", "Asia/Tokyo", "Asia/Tokyo"),
        ("CET-1CEST", "Asia/Tokyo", None),
        ("", "nowhere", None),
        ("", "", None),
    ],
)
def test_the_machines_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, linked: str, zone: str | None
) -> None:
    (tmp_path / "localtime").symlink_to(tmp_path / "zoneinfo" / linked if linked else tmp_path / "a copy")
    monkeypatch.setattr("service.launch.command.LOCALTIME", tmp_path / "localtime")
    monkeypatch.setenv("TZ", told)
    assert machine_zone() == zone


@pytest.mark.parametrize(("program", "option"), [(main, "--extras"), (serve_models, "--list")])
def test_no_text_fails_on_a_console_that_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch, program: Callable[[Sequence[str]], int], option: str
) -> None:
    console = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(console, "ascii", errors="strict"))
    assert program([option]) == 0
    sys.stdout.write("北")
    sys.stdout.flush()
    assert console.getvalue().endswith(rb"\u5317")


@pytest.mark.parametrize("workers", ["0", "1000000", "two"])
def test_a_senseless_number_of_workers_is_one_line(workers: str, tmp_path: Path) -> None:
    result = run(tmp_path, WORKERS=workers)
    assert result.returncode == 1
    assert result.stderr.startswith(f"WORKERS = '{workers}'")
    assert result.stderr.count("\n") == 1


def test_a_rebuild_gets_its_own_arguments_and_its_status_is_passed_on(tmp_path: Path) -> None:
    settings = {"STORAGE_DIR": str(tmp_path / "storage"), "EMB_MODEL": "any"}
    planned = run(tmp_path, "--rebuild", "--dry-run", "--json", **settings)
    assert (planned.returncode, planned.stderr) == (0, "")
    assert json.loads(planned.stdout)["events"] == 0
    refused = run(tmp_path, "--rebuild", "--verify", "--prune", **settings)
    assert refused.returncode == 2
    assert "not allowed with" in refused.stderr
    failed = run(tmp_path, "--rebuild", "--verify", **settings)
    assert failed.returncode == 1
    assert failed.stderr.startswith("rebuild: there is no ledger")
    assert failed.stderr.count("\n") == 1


def test_arguments_of_a_rebuild_are_no_arguments_of_a_launch(tmp_path: Path) -> None:
    result = run(tmp_path, "--dry-run")
    assert result.returncode == 2
    assert "unrecognized arguments: --dry-run" in result.stderr


def test_the_local_extra_is_asked_for_unless_both_endpoints_are_configured(tmp_path: Path) -> None:
    assert run(tmp_path, "--extras").stdout == ""
    assert run(tmp_path, "--extras", EMB_BASE_URL="").stdout == "local\n"
    (tmp_path / ".env").write_text("EMB_BASE_URL=http://127.0.0.1:2/v1\n")
    variables = environment()
    del variables["EMB_BASE_URL"]
    asked = [sys.executable, "-m", "service.launch", "--extras"]
    assert subprocess.run(asked, env=variables, cwd=tmp_path, capture_output=True, check=True).stdout == b""


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_dotenv_file_of_another_system_is_read(tmp_path: Path, encoding: str) -> None:
    lines = [*(f"{name}='{value}'" for name, value in ENDPOINTS.items()), "PORT=ninety"]
    (tmp_path / ".env").write_bytes("\r\n".join(lines).encode(encoding))
    variables = {name: value for name, value in environment().items() if name not in ENDPOINTS}
    command = [sys.executable, "-m", "service.launch"]
    result = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert result.stderr.startswith("PORT = 'ninety'")
    (tmp_path / ".env").write_bytes("\r\n".join(lines[:-1]).encode(encoding))
    asked = subprocess.run([*command, "--extras"], env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (0, "")


ANNOUNCED = {
    "OPENAI_API_KEY": "local",
    "LLM_BASE_URL": "http://127.0.0.1:9/v1",
    "LLM_MODEL": "small",
    "EMB_BASE_URL": "http://127.0.0.1:9/v1",
    "EMB_MODEL": "e5",
    "EMBEDDING_DIMS": "384",
}


def test_the_api_is_pointed_at_what_we_serve_and_given_the_profile_that_suits_it() -> None:
    found = api_environment(ANNOUNCED, ["chat", "embeddings"], {"LLM_MODEL": "gpt-9"})
    assert found == {**ANNOUNCED, **EMBEDDED_PROFILE}


def test_the_embedded_chat_model_has_a_prompt_of_its_own_unless_the_operator_brings_one() -> None:
    built_in = load_prompts(None)
    own = load_prompts(Path(api_environment(ANNOUNCED, ["chat", "embeddings"], {})["PROMPTS_DIR"]))
    assert own.chat != built_in.chat
    # One word of another language in it, and the small model answers everything in that language.
    assert own.chat.text.isascii()
    for recalled, *both in ((False, "Hi", "你好"), (True, "Hi", "你好"), (True, "Where do I live?", "我住在哪里？")):
        english, chinese = (own.chat_for(said, recalled=recalled) for said in both)
        assert (is_chinese(english.text), is_chinese(chinese.text)) == (False, True)
        assert not re.search(r"[\u4e00-\u9fff]", english.text)
    assert (own.summary, own.gate, own.rerank) == (built_in.summary, built_in.gate, built_in.rerank)
    assert "PROMPTS_DIR" not in api_environment(ANNOUNCED, ["chat", "embeddings"], {"PROMPTS_DIR": "mine"})


@pytest.mark.parametrize("question", ["Where do I live?", "我住在哪里？"])
def test_the_examples_of_the_embedded_chat_prompt_are_notes_as_they_are_shown(question: str) -> None:
    """A small model does as the examples do where it sees the same form again."""
    own = load_prompts(Path(CHAT_PROFILE["PROMPTS_DIR"])).chat_for(question, recalled=True).text
    shown = laid_out(
        layout=NOTES_LAYOUT,
        system="",
        client_system="",
        window=[],
        replay=[memory(1, "I moved.", "Where to?")],
        summarised=[],
        neighbors=[],
        asked=[{"role": "user", "content": "Where?"}],
        asked_at=datetime(2027, 1, 1, tzinfo=UTC),
    )[-1]["content"]
    heading, note, end = str(shown).splitlines()[:3]
    assert heading == f"What you remember, until the line {end}:"
    quoted = re.findall(r"\nWhat you remember, until the line (end-[0-9a-f]{10}):\n(?:- \(.*\n)+\1\n", own)
    assert len(quoted) == len(re.findall(r"\n(?:Answer: |回答：)", own))
    form = re.compile(r"- \(\d{4}-\d\d-\d\d\) .+ — .+")
    assert form.fullmatch(note)
    assert all(form.fullmatch(line) for line in own.splitlines() if line.startswith("- "))


def test_what_the_operator_set_stays() -> None:
    configured = {"GATE": "llm", "OPENAI_API_KEY": "mine", "USE_RERANK_DEFAULT": ""}
    found = api_environment(ANNOUNCED, ["chat", "embeddings"], configured)
    assert "GATE" not in found
    assert "OPENAI_API_KEY" not in found
    assert found["USE_RERANK_DEFAULT"] == "false"


def test_who_brings_a_reranker_means_it_to_be_used() -> None:
    found = api_environment(ANNOUNCED, ["chat", "embeddings"], {"RERANK_BASE_URL": "http://r", "RERANK_MODEL": "r"})
    assert "USE_RERANK_DEFAULT" not in found
    assert found["GATE"] == EMBEDDED_PROFILE["GATE"]


def test_a_chat_model_of_the_operators_keeps_its_own_gate() -> None:
    only_embeddings = {name: value for name, value in ANNOUNCED.items() if not name.startswith("LLM")}
    assert api_environment(only_embeddings, ["embeddings"], {}) == only_embeddings | EMBEDDINGS_PROFILE

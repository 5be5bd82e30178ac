"""`python -m service.launch`: run the whole product on this machine until Ctrl-C. `make run` calls it.

It starts the embedded models (where no chat or embedding endpoint is configured), then the API, then the chat page.
Everything listens on loopback.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2
from dotenv import dotenv_values
from pydantic import Field

from domain.console import print_any_text
from domain.errors import SettingsError
from domain.prompts import load_prompts
from domain.settings import ENV_FILE, EnvironmentSettings, env_file_encoding, load_settings
from domain.temporal.zones import zone_named
from service.launch.supervisor import LaunchError, ProgramEnded, StopAsked, Supervisor, supervising
from service.ports import port_trouble
from service.settings import ServiceSettings

HOST = "127.0.0.1"
PROMPTS = Path(__file__).parent / "prompts"
LOCALTIME = Path("/etc/localtime")
PAGE = Path(__file__).parents[2] / "frontend" / "app.py"

# Time to load a model from a slow disk; to migrate and catch up a large ledger; to import the page's libraries.
MODELS_READY_SECONDS = 300.0
API_READY_SECONDS = 120.0
PAGE_READY_SECONDS = 60.0
HEALTH_SECONDS = 2.0
# Far above any number of cores that would help; a slip of the finger must not start thousands.
WORKERS_MAX = 256
# How long the API waits for answers still streaming; shorter than the wait before it is killed.
API_STREAMS_END_SECONDS = 5

MODELS, API, CHAT_PAGE = "The embedded models", "The API", "The chat page"

# Defaults for small models on a CPU, unless the operator sets others (docs/benchmarks.md). They gate no better than
# chance, so similarity scores gate instead. Background summaries must leave the CPU to answers. Embedding a long text
# takes seconds, and so does reading each replayed turn. They need to be told more of what to answer than larger models,
# and continue past turns rather than believe the newest of them (docs/decisions/0065-notes-for-small-models.md).
CHAT_PROFILE = {
    "GATE": "score",
    "USE_RERANK_DEFAULT": "false",
    "NEIGHBOR_TURNS_DEFAULT": "0",
    "REPLAY_AS": "notes",
    "SUMMARY_CONCURRENCY": "1",
    "SUMMARY_CONCURRENCY_MAX": "1",
    "PROMPTS_DIR": str(PROMPTS),
}
EMBEDDINGS_PROFILE = {"EMB_TIMEOUT_S": "30"}
EMBEDDED_PROFILE = {**CHAT_PROFILE, **EMBEDDINGS_PROFILE}


class LaunchSettings(EnvironmentSettings):
    """The launcher's own settings; the programs read theirs."""

    port: int = Field(default=9000, ge=1, le=65535)
    ui_port: int = Field(default=8501, ge=1, le=65535)
    workers: int = Field(default=1, ge=1, le=WORKERS_MAX, description="processes of the API")
    llm_base_url: str = ""
    emb_base_url: str = ""

    @property
    def embedded(self) -> list[str]:
        """The models to serve ourselves, as `--only` of the embedded models names them."""
        return [model for model, url in (("chat", self.llm_base_url), ("embeddings", self.emb_base_url)) if not url]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m service.launch", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="rebuild memory's indices with these settings and exit; passes further arguments to the rebuild",
    )
    parser.add_argument("--extras", action="store_true", help="print the extras needed here and exit")
    parser.add_argument("--with-parent", action="store_true", help="exit when the process that started this one exits")
    print_any_text()
    options, further = parser.parse_known_args(arguments)
    if further and not options.rebuild:
        parser.error(f"unrecognized arguments: {' '.join(further)}")
    # GNU make leaves the program of its recipe running when it is killed.
    parent = os.getppid() if options.with_parent else None
    try:
        settings = load_settings(LaunchSettings)
        if options.extras:
            sys.stdout.write("local\n" if settings.embedded else "")
            return 0
        if not options.rebuild:
            _check_ports(settings)
            _check_service(settings)
        with supervising(parent) as supervisor:
            if options.rebuild:
                return rebuild(settings, supervisor, further)
            launch(settings, supervisor)
    except (SettingsError, LaunchError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (StopAsked, KeyboardInterrupt):
        sys.stderr.write("Stopped.\n")
    return 0


def launch(settings: LaunchSettings, supervisor: Supervisor) -> None:
    """Start everything and watch it; never returns, raises StopAsked or a LaunchError."""
    endpoints = _start_models(settings, supervisor) if settings.embedded else {}
    api, page = f"http://{HOST}:{settings.port}", f"http://{HOST}:{settings.ui_port}"
    # Whoever runs this at home means the days of this machine.
    zone = machine_zone() if not _configured().get("TIMEZONE") else None
    environment = endpoints | ({"TIMEZONE": zone} if zone is not None else {})
    supervisor.start(API, _api_command(settings.port, settings.workers), environment)
    supervisor.wait_until(API, lambda: _healthy(f"{api}/health"), API_READY_SECONDS)
    supervisor.start(CHAT_PAGE, _page_command(settings.ui_port), {"BACKEND_URL": api})
    supervisor.wait_until(CHAT_PAGE, lambda: _healthy(f"{page}/_stcore/health"), PAGE_READY_SECONDS)
    sys.stdout.write(f"\n  Chat page  {page}\n  API        {api}/v1\n\nCtrl-C stops both.\n")
    sys.stdout.flush()
    supervisor.watch()


def rebuild(settings: LaunchSettings, supervisor: Supervisor, arguments: Sequence[str]) -> int:
    """Run `python -m projections.rebuild`, with the embedded embedding model if none is configured.

    Returns its exit status; it reports its own errors.
    """
    environment: dict[str, str] = {}
    if "embeddings" in settings.embedded:
        environment = _start_models(settings.model_copy(update={"llm_base_url": "not needed"}), supervisor)
    try:
        supervisor.finish("The rebuild", [sys.executable, "-m", "projections.rebuild", *arguments], environment)
    except ProgramEnded as error:
        if error.code < 0:
            raise
        return error.code
    return 0


def api_environment(
    announced: Mapping[str, str], embedded: Sequence[str], configured: Mapping[str, str | None]
) -> dict[str, str]:
    """The variables to add to the operator's own (`configured`: environment and `.env`) for the API.

    Addresses and names of the embedded models override what is configured; the profile and the dummy key only fill
    gaps.
    """
    profile = (CHAT_PROFILE if "chat" in embedded else {}) | (EMBEDDINGS_PROFILE if "embeddings" in embedded else {})
    if configured.get("RERANK_BASE_URL"):
        # A configured reranker is meant to be used.
        profile = {name: value for name, value in profile.items() if name != "USE_RERANK_DEFAULT"}
    fillers = {**profile, "OPENAI_API_KEY": announced["OPENAI_API_KEY"]}
    return {
        **{name: value for name, value in announced.items() if name not in fillers},
        **{name: value for name, value in fillers.items() if not configured.get(name)},
    }


def _start_models(settings: LaunchSettings, supervisor: Supervisor) -> dict[str, str]:
    command = [sys.executable, "-m", "service.local_models"]
    if "chat" in settings.embedded:
        # A step of its own, because a download may take hours, while loading has a time limit.
        supervisor.finish("Fetching the chat model", [*command, "--fetch-only"], {})
    only = ["--only", settings.embedded[0]] if len(settings.embedded) == 1 else []
    child = supervisor.start(MODELS, [*command, "--port", "0", *only], {}, stdout=subprocess.PIPE)
    lines = supervisor.read_announcement(MODELS, child, "ready", MODELS_READY_SECONDS)
    announced = dict(line.split("=", 1) for line in lines)
    return api_environment(announced, settings.embedded, _configured())


def _configured() -> dict[str, str | None]:
    """Return the operator's own variables, of the environment and of `.env`."""
    return {**dotenv_values(ENV_FILE, encoding=env_file_encoding()), **os.environ}


def machine_zone() -> str | None:
    """Return the IANA name of this machine's time zone, None where it tells none, as on Windows."""
    told = os.environ.get("TZ", "").removeprefix(":")
    name = told or str(LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return str(zone_named(name))
    except ValueError:
        return None


def _api_command(port: int, workers: int) -> list[str]:
    command = [sys.executable, "-m", "service", "--host", HOST, "--port", str(port), "--workers", str(workers)]
    return [*command, "--answers-end-s", str(API_STREAMS_END_SECONDS)]


def _page_command(port: int) -> list[str]:
    command = [sys.executable, "-m", "streamlit", "run", str(PAGE), "--server.address", HOST]
    command += ["--server.port", str(port), "--server.headless", "true"]
    return [*command, "--browser.gatherUsageStats", "false"]


def _check_ports(settings: LaunchSettings) -> None:
    if settings.port == settings.ui_port:
        raise LaunchError(f"PORT and UI_PORT are both {settings.port}: set one of them to another port.")
    complaints = [
        f"Port {port} on {HOST} {trouble}: set {variable} to a free one, for example {variable}={port + 10} make run."
        for variable, port in (("PORT", settings.port), ("UI_PORT", settings.ui_port))
        if (trouble := port_trouble(HOST, port)) is not None
    ]
    if complaints:
        raise LaunchError("\n".join(complaints))


def _check_service(settings: LaunchSettings) -> None:
    """Read the API's settings as it will read them, to report errors before models are fetched and loaded."""
    embedded = {
        "chat": {"llm_base_url": "http://embedded", "llm_model": "embedded"},
        "embeddings": {"emb_base_url": "http://embedded", "emb_model": "embedded"},
    }
    filled = {name: value for model in settings.embedded for name, value in embedded[model].items()}
    load_prompts(load_settings(ServiceSettings, **filled).prompts_dir)


def _healthy(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=HEALTH_SECONDS, trust_env=False).status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False

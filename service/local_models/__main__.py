"""`python -m service.local_models`: serve the embedded models on loopback until stopped.

When both answer, it prints the settings that point the service here, ready for a `.env` file, and then a line `ready`.
Everything else goes to standard error. SIGTERM and SIGINT stop it with exit code 0.
"""

import argparse
import errno
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from domain.console import print_any_text
from domain.errors import SettingsError
from domain.settings import load_settings
from service.local_models import catalogue
from service.local_models.app import create_app
from service.local_models.catalogue import KV_BYTES_UNKNOWN, HubFile, ModelFile
from service.local_models.chat_engine import ChatEngine, context_for
from service.local_models.embedder import DIMENSIONS, Embedder
from service.local_models.embedder import NAME as EMBEDDING_MODEL
from service.local_models.errors import LocalModelsError, PortTaken
from service.local_models.fetch import ensure_hub_file, ensure_model
from service.local_models.machine import this_machine
from service.local_models.settings import LocalModelsSettings
from service.local_models.sources import HubSource, Source, WheelSource

HOST = "127.0.0.1"
READY = "ready"
# How long to wait at shutdown for an answer that is still streaming.
STREAMS_END_SECONDS = 2

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    print_any_text()
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    try:
        settings = load_settings(LocalModelsSettings)
        if options.list:
            sys.stdout.writelines(f"{line}\n" for line in catalogue.table())
        elif options.fetch_only:
            _chat_file(settings)
        else:
            _serve(settings, options)
    except (LocalModelsError, SettingsError) as error:
        log.error("%s", error)  # noqa: TRY400 - a message for the operator, who needs no traceback
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.local_models", description=__doc__)
    parser.add_argument("--port", type=int, help="loopback port (LOCAL_MODELS_PORT); 0 takes any free one")
    parser.add_argument("--only", choices=["chat", "embeddings"], help="serve one of the two")
    parser.add_argument("--fetch-only", action="store_true", help="download the chat model and exit")
    parser.add_argument("--list", action="store_true", help="list the chat models and exit")
    return parser


def _serve(settings: LocalModelsSettings, options: argparse.Namespace) -> None:
    port = settings.local_models_port if options.port is None else options.port
    # Bind before loading, which takes seconds, so that a taken port is reported at once.
    with _bound(port) as listener:
        threads = settings.local_threads or this_machine().cores
        embedder = Embedder(threads) if options.only != "chat" else None
        chat = _load_chat(settings, threads) if options.only != "embeddings" else None
        server = _Server(
            uvicorn.Config(
                create_app(chat, embedder),
                # `app` logs its errors by name; uvicorn would add tracebacks, which may quote requests.
                log_level="critical",
                access_log=False,
                timeout_graceful_shutdown=STREAMS_END_SECONDS,
            ),
            _announcement(f"http://{HOST}:{listener.getsockname()[1]}/v1", chat, embedder),
        )
        # uvicorn raises the signal again after its shutdown. These handlers make that harmless, so that the models
        # below are freed. While a model loads, the default action still ends the process at once.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda _signum, _frame: setattr(server, "should_exit", True))
        server.run(sockets=[listener])
        if chat is not None:
            chat.close()
        if embedder is not None:
            embedder.close()


class _Server(uvicorn.Server):
    """Prints the announcement once it listens."""

    def __init__(self, config: uvicorn.Config, announcement: Sequence[str]) -> None:
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        sys.stdout.write("".join(f"{line}\n" for line in (*self._announcement, READY)))
        sys.stdout.flush()


def _load_chat(settings: LocalModelsSettings, threads: int) -> ChatEngine:
    name, path, kv_bytes = _chat_file(settings)
    context = settings.local_context or context_for(this_machine(), path.stat().st_size, kv_bytes)
    log.info("Loading %s (%d threads, %d tokens of context)", name, threads, context)
    return ChatEngine(name, path, context=context, threads=threads)


def _chat_file(settings: LocalModelsSettings) -> tuple[str, Path, int]:
    """The chat model's name, file and bytes of context memory per token; downloads it if needed."""
    model = catalogue.resolve(settings.local_chat_model, this_machine())
    if isinstance(model, ModelFile):
        return model.name, model.path, KV_BYTES_UNKNOWN
    hub = HubSource(settings.hf_endpoint)
    if isinstance(model, HubFile):
        return model.name, ensure_hub_file(model, settings.local_models_dir, hub), KV_BYTES_UNKNOWN
    sources: list[Source] = [hub, WheelSource()]
    return model.name, ensure_model(model, settings.local_models_dir, sources), model.kv_bytes


def _announcement(base_url: str, chat: ChatEngine | None, embedder: Embedder | None) -> list[str]:
    lines = ["OPENAI_API_KEY=local"]
    if chat is not None:
        lines += [f"LLM_BASE_URL={base_url}", f"LLM_MODEL={chat.name}"]
    if embedder is not None:
        lines += [f"EMB_BASE_URL={base_url}", f"EMB_MODEL={EMBEDDING_MODEL}", f"EMBEDDING_DIMS={DIMENSIONS}"]
    return lines


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(
            f"Port {port} on {HOST} is taken; LOCAL_MODELS_PORT chooses another (0: any free one)."
        ) from None
    return listener


if __name__ == "__main__":
    sys.exit(main())

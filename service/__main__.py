"""``python -m service [--host H] [--port P] [--workers N]``: the API, on port 9000 unless told otherwise."""

from __future__ import annotations

import argparse
import sys

import uvicorn

from domain.api_keys import keys_in
from domain.console import print_any_text
from domain.errors import OpmError, SettingsError
from domain.prompts import load_prompts
from domain.settings import load_settings
from service.api.access import is_loopback
from service.api.slow_requests import BoundedHttp
from service.ports import port_trouble
from service.settings import ServiceSettings

DEFAULT_PORT = 9000
_PORT_MAX = 65_535
_ANSWERS_END_S = 10
"""How long running answers may go on once the service is told to stop."""
_HTTP = f"{BoundedHttp.__module__}:{BoundedHttp.__name__}"
"""By its name, since each worker imports it for itself."""


def main() -> None:
    """Run the API until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Run the OpenPersistentMemory API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer (default: %(default)s)")
    parser.add_argument(
        "--answers-end-s",
        type=int,
        default=_ANSWERS_END_S,
        help="how long running answers may go on once it is told to stop (default: %(default)s)",
    )
    print_any_text()
    given = parser.parse_args()
    try:
        # uvicorn would start a worker again and again that ends because of its settings.
        settings = load_settings(ServiceSettings)
        load_prompts(settings.prompts_dir)
        if (trouble := port_trouble(given.host, given.port)) is not None:
            sys.exit(f"openpersistentmemory: port {given.port} on {given.host} {trouble}: choose another with --port")
        _check_host(given.host, settings)
    except OpmError as error:
        sys.exit(f"openpersistentmemory: {error}")
    uvicorn.run(
        "service.app:app",
        host=given.host,
        port=given.port,
        workers=given.workers,
        http=_HTTP,
        access_log=False,  # as in `service.app`, which logs requests itself
        timeout_graceful_shutdown=given.answers_end_s,
    )


def _check_host(host: str, settings: ServiceSettings) -> None:
    """Refuse to listen where others can call, as long as nobody needs a key to read every memory."""
    if is_loopback(host) or settings.allow_anonymous or settings.api_keys or keys_in(settings.ledger_path):
        return
    raise SettingsError(
        f"--host {host} lets others than this machine call, and there are no keys: make one (`opm keys create`), set "
        "API_KEYS, or set ALLOW_ANONYMOUS=1 if all who reach it may read every memory"
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _PORT_MAX):
        raise argparse.ArgumentTypeError(f"{text!r} is no number up to {_PORT_MAX}")
    return int(text)


if __name__ == "__main__":
    main()

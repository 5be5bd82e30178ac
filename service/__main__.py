"""``python -m service [--host H] [--port P] [--workers N]``: the API, on port 9000 unless told otherwise."""

from __future__ import annotations

import argparse

import uvicorn

DEFAULT_PORT = 9000
_ANSWERS_END_S = 10
"""How long running answers may go on once the service is told to stop."""


def main() -> None:
    """Run the API until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m service", description="Run the OpenPersistentMemory API.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to listen on (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer (default: %(default)s)")
    given = parser.parse_args()
    uvicorn.run(
        "service.app:app",
        host=given.host,
        port=given.port,
        workers=given.workers,
        timeout_graceful_shutdown=_ANSWERS_END_S,
    )


if __name__ == "__main__":
    main()

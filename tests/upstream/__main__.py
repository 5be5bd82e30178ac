"""Run the scripted upstream as a process, for benchmarks. The first line of output is its base URL."""

import argparse
import signal
import sys
import threading

from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL, Fault, ScriptedUpstream


def main() -> None:
    """Run until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream", description="A scripted OpenAI-compatible server."
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--embedding-model", default=EMBEDDING_MODEL)
    parser.add_argument("--chat-model", default=CHAT_MODEL)
    parser.add_argument("--embed-ms", type=float, default=0.0, help="delay every embedding answer this long")
    arguments = parser.parse_args()
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    upstream = ScriptedUpstream(
        dims=arguments.dims,
        embedding_models=(arguments.embedding_model,),
        chat_model=arguments.chat_model,
        port=arguments.port,
        keep_bodies=False,
    )
    if arguments.embed_ms:
        upstream.fail_always("embed", Fault(hang_s=arguments.embed_ms / 1000))
    with upstream:
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        stopping.wait()


if __name__ == "__main__":
    main()

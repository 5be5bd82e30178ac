"""Runs the scripted upstream as a process, for benchmarks: the first line of output is its base URL."""

import argparse
import signal
import sys
import threading

from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL, Fault, ScriptedUpstream


def main() -> None:
    """Runs until SIGINT or SIGTERM; the first line of output is the base URL."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream", description="A scripted OpenAI-compatible server."
    )
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--embedding-model", default=EMBEDDING_MODEL)
    parser.add_argument("--chat-model", default=CHAT_MODEL)
    parser.add_argument("--answer", help="say this to every question, instead of quoting memory")
    parser.add_argument("--embed-ms", type=float, default=0.0, help="let every embedding request take this long")
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
    if arguments.answer is not None:
        upstream.say("answer", arguments.answer)
    with upstream:
        sys.stdout.write(f"{upstream.base_url}\n")
        sys.stdout.flush()
        stopping.wait()


if __name__ == "__main__":
    main()

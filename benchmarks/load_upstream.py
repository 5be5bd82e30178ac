"""``python -m benchmarks.load_upstream``: an upstream that costs next to nothing, so that load falls on the service.

It says the same to everybody: the gate keeps every candidate, the rerank takes them in their order, an embedding is one
of a pool of random vectors. The first word of a streamed answer is the time at which it was sent, by the machine's
monotonic clock. ``GET /_calls`` returns how many calls came, and kind and body of the last seven, oldest first: those
of one turn. The first line of output is the base URL.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import re
import time
from collections import deque
from zlib import crc32

import numpy as np

from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL
from tests.upstream.dialect import Dialect
from tests.upstream.http import Connection, HttpRequest

ANSWER_WORDS = 60
CALLS_PER_TURN = 7
_POOL = 1024
_USAGE = b'{"prompt_tokens":900,"completion_tokens":60,"total_tokens":960}'
_HEAD = b'{"id":"chatcmpl-1","created":1700000000,"model":"%b","object":"chat.completion' % CHAT_MODEL.encode()
_EVENT = b"data: " + _HEAD + b'.chunk","choices":[{"index":0,"delta":{%b},"logprobs":null,"finish_reason":%b}]}\n\n'
_WORDS = [_EVENT % (b'"content":" word%d"' % number, b"null") for number in range(1, ANSWER_WORDS)]
_OPENING = _EVENT % (b'"role":"assistant","content":""', b"null")
_CLOSING = _EVENT % (b"", b'"stop"')
_USED = b"data: " + _HEAD + b'.chunk","choices":[],"usage":' + _USAGE + b"}\n\n"
_DONE = b"data: [DONE]\n\n"
_WHOLE = (
    _HEAD
    + b'","choices":[{"index":0,"message":{"role":"assistant","content":%b},"logprobs":null,"finish_reason":"stop"}],'
    + b'"usage":'
    + _USAGE
    + b"}"
)
# Numbered, since the vector of a text that was said before is not asked for again.
_SUMMARY = b'"The person asked what we read by the harbour, and the assistant told it in some sixty words (%d)."'
_CANDIDATE = re.compile(rb"\\n\[(\d+)\] ")
_IS_SUMMARY = re.compile(rb"memory summar", re.IGNORECASE)


class CheapUpstream:
    """Answers from bytes made beforehand."""

    def __init__(self, dims: int) -> None:
        vectors = np.random.default_rng(11).standard_normal((_POOL, dims), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        self._pool = [base64.b64encode(vector.astype("<f4").tobytes()) for vector in vectors]
        self._models = json.dumps(Dialect().models()).encode()
        self._calls = 0
        self._last: deque[tuple[str, bytes]] = deque(maxlen=CALLS_PER_TURN)

    async def handle(self, http: HttpRequest, connection: Connection) -> None:
        match http.path:
            case "/v1/embeddings":
                self._embed(http.body, connection)
            case "/v1/chat/completions":
                self._chat(http.body, connection)
            case "/v1/models":
                connection.send(200, self._models)
            case "/_calls":
                last = [(kind, json.loads(body)) for kind, body in self._last]
                connection.send(200, json.dumps({"count": self._calls, "last": last}).encode())
            case _:
                connection.send(404, b'{"detail":"Not Found"}')

    def _came(self, kind: str, body: bytes) -> None:
        self._calls += 1
        self._last.append((kind, body))

    def _embed(self, body: bytes, connection: Connection) -> None:
        self._came("embed", body)
        asked = json.loads(body)
        if asked.get("encoding_format") != "base64":
            connection.send(400, b'{"error":{"message":"only base64 here","type":"invalid_request_error"}}')
            return
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        rows = [
            b'{"object":"embedding","index":%d,"embedding":"%b"}'
            % (index, self._pool[crc32(text.encode("utf-8", "surrogatepass")) % _POOL])
            for index, text in enumerate(texts)
        ]
        answer = b'{"object":"list","model":"%b","data":[%b],"usage":{"prompt_tokens":9,"total_tokens":9}}'
        connection.send(200, answer % (EMBEDDING_MODEL.encode(), b",".join(rows)))

    def _chat(self, body: bytes, connection: Connection) -> None:
        if b'"memory_gate"' in body:
            self._decide("gate", b"keep", body, connection)
        elif b'"memory_rerank"' in body:
            self._decide("rerank", b"top", body, connection)
        elif _IS_SUMMARY.search(body):
            self._came("summary", body)
            connection.send(200, _WHOLE % (_SUMMARY % self._calls))
        else:
            self._came("answer", body)
            self._stream(connection)

    def _decide(self, kind: str, field: bytes, body: bytes, connection: Connection) -> None:
        self._came(kind, body)
        decision = b'{"%b":[%b]}' % (field, b",".join(_CANDIDATE.findall(body)))
        connection.send(200, _WHOLE % json.dumps(decision.decode()).encode())

    def _stream(self, connection: Connection) -> None:
        # A write a word, as model servers do it; without latency most arrive together.
        connection.start_stream()
        connection.chunk(_OPENING)
        connection.chunk(_EVENT % (b'"content":"%.6f"' % time.monotonic(), b"null"))
        for word in _WORDS:
            connection.chunk(word)
        connection.chunk(_CLOSING + _USED + _DONE)
        connection.end_stream()


async def _serve(dims: int) -> None:
    upstream = CheapUpstream(dims)
    errors: list[BaseException] = []
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(upstream.handle, set(), errors), "127.0.0.1", 0, backlog=1024
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_upstream", description="A cheap upstream.")
    parser.add_argument("--dims", type=int, default=1024)
    asyncio.run(_serve(parser.parse_args().dims))


if __name__ == "__main__":
    main()

"""A scripted upstream: a real HTTP server that speaks the OpenAI API, answers by simple rules, and fails on request.

Tests and benchmarks put the service in front of it instead of a model:

    with ScriptedUpstream(dims=64) as upstream:
        upstream.fail("gate", Fault(status=500))                          # the next gate call fails
        upstream.fail_always("embed", Fault(hang_s=UNTIL_RELEASED))       # every embedding call hangs
        ...                                                               # talk to upstream.base_url
        upstream.wait_for("answer")[0].body["messages"]

`python -m tests.upstream --port N --dims D` runs it as a process, with `GET /_calls` as its log.
"""

from tests.upstream.dialect import CHAT_MODEL, EMBEDDING_MODEL, RERANK_MODEL
from tests.upstream.responders import (
    ChatRequest,
    Reply,
    gate_by_shared_words,
    gate_drops_all,
    gate_keeps_all,
    rerank_by_shared_words,
)
from tests.upstream.script import KINDS, UNTIL_RELEASED, Call, Fault, Kind
from tests.upstream.server import ScriptedUpstream

__all__ = [
    "CHAT_MODEL",
    "EMBEDDING_MODEL",
    "KINDS",
    "RERANK_MODEL",
    "UNTIL_RELEASED",
    "Call",
    "ChatRequest",
    "Fault",
    "Kind",
    "Reply",
    "ScriptedUpstream",
    "gate_by_shared_words",
    "gate_drops_all",
    "gate_keeps_all",
    "rerank_by_shared_words",
]

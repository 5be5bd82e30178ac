"""Thirty turns with answers of three hundred words: what is recalled reaches the model in every one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.events import RerankDecided, RetrievalRecorded, TurnRecorded
from tests.service.running import running, until
from tests.upstream import ScriptedUpstream, gate_keeps_all

TURNS = 30
ANSWER = " ".join(["Of that there is a good deal to say, and this is one more sentence about it."] * 18)
"""Three hundred words."""
NAMES = [
    f"{first}{last}" for first in ("Bru", "Mi", "Ta", "Ole", "Kar") for last in ("no", "so", "ra", "nka", "lin", "do")
]


def told(turn: int) -> str:
    name = NAMES[turn % len(NAMES)]
    return f"My friend {name} keeps {turn + 2} goats on the hill behind the mill of {name}. What do you think of that?"


def asked(turn: int) -> str:
    name = NAMES[(turn - 12) % len(NAMES)]
    return f"How many goats did I say that my friend {name} keeps? And {told(turn)}"


EVERYTHING = ("json_schema", "json_object", "max_tokens", "temperature", "stream_options", "system")


def endpoint(name: str, context: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the switches of an upstream like ``name``, and the service's settings for it."""
    match name:
        case "vLLM":
            return {"max_model_len": context}, {}
        case "llama.cpp":
            props = {"default_generation_settings": {"n_ctx": context}}
            return {"max_model_len": None, "tokenize": False, "answers_at": {"/props": props}}, {}
        case "Ollama":
            shown = {"parameters": f"num_ctx {context}", "model_info": {}}
            return {"max_model_len": None, "tokenize": False, "answers_at": {"/api/show": shown}}, {}
        case "one that takes little":
            return {"max_model_len": None, "tokenize": False, "refuses": EVERYTHING}, {"llm_context_tokens": context}
        case _:
            return {"max_model_len": None, "tokenize": False}, {"llm_context_tokens": context}


@pytest.mark.parametrize("context", [4096, 32_768])
@pytest.mark.parametrize("name", ["vLLM", "llama.cpp", "Ollama", "one that takes little", "one that says nothing"])
def test_all_that_was_to_be_replayed_reaches_the_model(tmp_path: Path, user: str, name: str, context: int) -> None:
    switches, settings = endpoint(name, context)
    with (
        ScriptedUpstream(**switches) as upstream,
        running(upstream, tmp_path, neighbor_turns_default=1, **settings) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.tokens == context)
        upstream.say("answer", ANSWER)
        upstream.responders["gate"] = gate_keeps_all
        turns: list[str] = []
        for turn in range(TURNS):
            question = told(turn) if turn < 12 else asked(turn)
            answer = service.client.tell(question, user, "long", stream=bool(turn % 2))
            service.settle()
            recorded = service.ledger.one(TurnRecorded, answer)
            rerank = service.ledger.one(RerankDecided, answer)
            shown = {*recorded.replayed, *recorded.summarised, *recorded.neighbours, *recorded.window}
            assert set(rerank.replayed) <= shown
            report = service.ledger.report(answer)
            assert report.tokens <= report.budget_tokens
            status = answer.memory("memory_status")["shown"]
            assert status["recalled"] == len(rerank.order)
            assert status["left_out"] == len(set(rerank.order) - shown)
            if turn >= 12:
                # What was told before the window is shown, word for word or as a summary, or told to be left out.
                wanted = turns[turn - 12]
                if wanted in shown:
                    messages = upstream.calls_of("answer")[-1].body["messages"][:-1]
                    assert NAMES[turn - 12] in "\n".join(message["content"] for message in messages)
                else:
                    assert wanted not in rerank.replayed
                    assert wanted in {item.memory_id for item in report.left_out}
            turns.append(answer.memory("turn")["memory_id"])
            # A turn is excluded as part of the window only where the window shows it.
            retrieval = service.ledger.one(RetrievalRecorded, answer)
            hidden = {found.memory_id for found in retrieval.candidates if found.excluded == "recent_window"}
            assert hidden <= set(recorded.window)

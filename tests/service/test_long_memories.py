"""Memories of hundreds of thousands of characters cost a turn a bounded number of them, and its prompt stays proven."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.events import PromptReport
from domain.excerpt import GAP
from tests.service.opm import environment, opm
from tests.service.running import running
from tests.upstream import Fault, ScriptedUpstream, gate_keeps_all

CHARS = 170_000
CONTEXT = 2_000_000


def told(number: int) -> str:
    return f"Report {number} of the harbour of Bergen begins here. {'x ' * (CHARS // 2)} It ends with herring {number}."


@pytest.mark.parametrize("summaries", [True, False], ids=["summarised", "not yet summarised"])
def test_what_is_read_shortened_is_shown_so_reported_and_proven(tmp_path: Path, summaries: bool) -> None:
    with (
        ScriptedUpstream(max_model_len=CONTEXT, tokenize=False) as upstream,
        running(upstream, tmp_path, llm_context_tokens=CONTEXT) as service,
    ):
        upstream.responders["gate"] = gate_keeps_all
        if not summaries:
            service.upstream.fail_always("summary", Fault(status=500))
        upstream.say("answer", "Noted.")
        for number in range(3):
            service.client.tell(told(number), "ann", "reports", candidate_n=0, recent_turns=0)
        service.settle()
        question = "What does the report of the harbour of Bergen end with?"
        for conversation, knobs in (
            ("asked", {"retrieve_k": 2, "candidate_n": 60}),
            ("reports", {"recent_turns": 50}),
            ("summaries", {"retrieve_k": 0}),
        ):
            answer = service.client.tell(question, "ann", conversation, **knobs)
            sent = [text for _, text in service.messages()]
            assert max(map(len, sent)) < CHARS
            report: PromptReport = service.ledger.report(answer)
            if conversation != "summaries":
                assert any(GAP in text and "herring" in text for text in sent)
                assert report.shortened
            explained = opm(environment(tmp_path), "explain", answer.id, "--json")
            assert explained.status == 0
            assert explained.json["prompt"]["proof"] == "same_as_sent"
        # People are shown all of it.
        (first, *_) = service.client.get("/v1/turns", user="ann", conversation_id="reports").json()["data"]
        assert len(first["user"]) > CHARS

"""What an auditor is shown of answers that were given with a memory which was erased since."""

from __future__ import annotations

import json
from pathlib import Path

from tests.service.cli.conftest import Opm
from tests.service.running import running
from tests.upstream import ScriptedUpstream

SECRET = "The vault opens with Zanzibarquest."


def test_an_answer_is_explained_without_it(opm: Opm, storage: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, storage) as service:
        upstream.say("answer", "I will not repeat it.")
        told = service.client.tell(SECRET, "ann", "one")
        memory_id = told.memory("turn")["memory_id"]
        service.settle()
        answer = service.client.tell("What opens the vault?", "ann", "two")
        assert SECRET in answer.replayed
        service.settle()
        position = json.loads(opm("status", "--json").out)["events"]
        assert opm("erase", "-u", "ann", "--memory", memory_id, "--yes").status == 0
        for arguments in (
            ["explain", answer.id],
            ["explain", answer.id, "--json"],
            ["explain", "--last", "-u", "ann", "--full"],
            ["explain", told.id],
            ["explain", memory_id],
            ["recall", "vault", "-u", "ann", "--no-embed"],
            ["recall", "vault", "-u", "ann", "--no-embed", "--at", str(position)],
            ["memories", "-u", "ann"],
            ["conversations", "-u", "ann"],
            ["export", "-u", "ann"],
        ):
            ran = opm(*arguments)
            assert "Traceback" not in ran.err, arguments
            assert "Zanzibarquest" not in ran.out + ran.err, arguments
            assert ran.status in {0, 1} or "erased" in ran.err, (arguments, ran)
        shown = service.client.get("/v1/turns", user="ann", conversation_id="two")
        assert (shown.status_code, "Zanzibarquest" in shown.text) == (200, False)

"""Decisions come along with an export: what they name by position is the same here, and their prompts are proved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hypothesis import given, settings

from domain.events import Event, GateDecided, RerankDecided, RetrievalRecorded, TurnRecorded
from domain.ledger import Ledger
from domain.origin import IMPORT_COMMAND, Origin
from domain.sqlite import DRIVER
from projections.audit_index import bring_up_to_date
from projections.mirror.event_file import line_of
from service.importing.own_export import read_export
from service.importing.record import record_export
from tests.audit_history import STEPS, Step, append_steps, history
from tests.ledgers import all_stored, check_chain_with_erasures, new_ledger_file, opened
from tests.service.opm import environment, opm
from tests.service.running import running
from tests.upstream import ScriptedUpstream, gate_keeps_all

IMPORTED = Origin(actor="account:ann", route=IMPORT_COMMAND, client="opm 1")
FACTS = ["My dog is called Bruno.", "The dog Bruno likes cheese.", "Bruno the dog sleeps a lot.", "I live in Oslo."]


def written(ledger: Ledger, user: str, path: Path) -> Path:
    """Write what ``opm export`` does."""
    own = [row for row in all_stored(ledger) if row.user_id == user]
    path.write_text("".join(f"{line_of(row)}\n" for row in own), encoding="utf-8")
    return path


def by_id(ledger: Ledger) -> dict[str, Event]:
    return {event.event_id: event for event in ledger.reader.events_after(0, 10_000)}


@settings(deadline=None, max_examples=25)
@given(STEPS, STEPS)
def test_what_a_search_names_is_the_same_event_here(there: Sequence[Step], here: Sequence[Step]) -> None:
    with history(there) as before, history(here) as after:
        export = written(before, "ann", before.path.parent / "ann.jsonl")
        if not export.stat().st_size:
            return
        old = {event.position: event for event in by_id(before).values()}
        for _ in range(2):
            record_export(after, "carl", read_export(export), IMPORTED)
        events = by_id(after)
        new = {event.position: event for event in events.values()}
        own = [event for event in old.values() if event.user_id == "ann"]
        for event in own:
            if not isinstance(event.payload, RetrievalRecorded):
                continue
            search = events[event.event_id].payload
            assert isinstance(search, RetrievalRecorded)
            for then, now in zip(event.payload.candidates, search.candidates, strict=True):
                assert now.memory_id == then.memory_id
                assert new[now.turn_position].event_id == then.memory_id
                memory = new[now.turn_position].payload
                assert isinstance(memory, TurnRecorded)
                assert now.turn_id == memory.turn_id
                if then.summary_position is None:
                    assert now.summary_position is None
                elif then.summary_position < event.position:  # an invented one may lie in the future
                    named = old[then.summary_position]
                    here_too = events.get(named.event_id) if named.user_id == "ann" else None
                    assert now.summary_position == (here_too.position if here_too is not None else 0)
            up_to = min(event.payload.index_position or 0, event.position - 1)
            read = [earlier for earlier in own if earlier.position <= up_to and earlier.event_id in events]
            assert search.index_position == (events[read[-1].event_id].position if read else 0)
        kinds = (TurnRecorded, GateDecided, RerankDecided, RetrievalRecorded)
        taken = [event.event_id for event in own if isinstance(event.payload, kinds)]
        assert set(taken) <= set(events)
        check_chain_with_erasures(all_stored(after))


@settings(deadline=None, max_examples=15)
@given(STEPS)
def test_they_distort_no_figures(there: Sequence[Step]) -> None:
    """Usage and decisions of a ledger are the same after an import, in the views and in ``audit.sqlite3``."""

    def figures(ledger: Ledger) -> list[list[Any]]:
        bring_up_to_date(ledger.reader, ledger.path.parent)
        with closing(DRIVER.connect(ledger.path)) as connection:
            connection.execute("ATTACH ? AS audit", (str(ledger.path.with_name("audit.sqlite3")),))
            questions = (
                "SELECT * FROM usage_by_month ORDER BY 1, 2, 3, 4",
                "SELECT count(*), sum(latency_ms) FROM gate_decisions WHERE NOT imported",
                "SELECT count(*), sum(latency_ms) FROM rerank_decisions WHERE NOT imported",
                "SELECT count(*), sum(embed_ms) FROM retrievals WHERE NOT imported",
                "SELECT count(*), sum(total_ms) FROM turns WHERE imported_from IS NULL",
                "SELECT * FROM audit_decisions ORDER BY 1",
                "SELECT * FROM audit_judged ORDER BY 1, 2, 3",
            )
            return [connection.execute(question).fetchall() for question in questions]

    with history(there) as before, history([("answer", "ann", "trip", seed) for seed in range(3)]) as after:
        export = written(before, "ann", before.path.parent / "ann.jsonl")
        if not export.stat().st_size:
            return
        untouched = figures(after)
        record_export(after, "carl", read_export(export), IMPORTED)
        assert figures(after) == untouched


def test_the_prompts_of_an_imported_answer_are_proved(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    with ScriptedUpstream() as upstream:
        upstream.responders["gate"] = gate_keeps_all
        with running(upstream, there) as service:
            service.tell_all(FACTS, "ann")
            service.settle()
            asked = service.client.tell("What is my dog called?", "ann", "friday", retrieve_k=2, use_rerank=True)
            service.settle()
        with running(upstream, here) as service:  # it knows the prompts, and has a history of its own
            service.tell_all(["Something else."], "bob")
            service.settle()
    file = tmp_path / "ann.jsonl"
    assert opm(environment(there), "export", "-u", "ann", "-o", str(file)).status == 0
    before = opm(environment(there), "explain", asked.id, "--json").json
    said = opm(environment(here), "import", str(file), "-u", "carl", "--json")
    assert said.status == 0, said.err
    assert not said.json["skipped"].get("positions of memories that are not in it, in searches")
    explained = opm(environment(here), "explain", asked.id, "--json")
    assert explained.status == 0, explained.err
    after = explained.json
    assert after["prompt"] == before["prompt"]
    assert after["calls"] == before["calls"]
    assert set(after["calls"]) == {"gate", "rerank", "summary"}
    proofs = [after["prompt"]["proof"], *(call["proof"] for call in after["calls"].values())]
    assert set(proofs) == {"same_as_sent"}
    fates = [(each["memory_id"], each["fate"]) for each in before["candidates"]]
    assert [(each["memory_id"], each["fate"]) for each in after["candidates"]] == fates
    again = json.loads(opm(environment(here), "import", str(file), "-u", "carl", "--json").out)
    assert again["turns"] == 0


def test_a_search_that_names_what_did_not_come_along_says_so(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        append_steps(ledger, [("answer", "ann", "trip", seed) for seed in range(6)])
        rows = all_stored(ledger)
    answers = [row for row in rows if row.correlation_id == rows[-1].correlation_id]
    file = tmp_path / "last.jsonl"
    file.write_text("".join(f"{line_of(row)}\n" for row in answers), encoding="utf-8")
    here = tmp_path / "here"
    here.mkdir()
    new_ledger_file(here)
    named = json.loads(answers[0].payload)["candidates"]
    assert named
    said = opm(environment(here), "import", str(file), "-u", "ann", "--json").json
    assert said["skipped"]["positions of memories that are not in it, in searches"] == 1
    with opened(here / "ledger.sqlite3") as ledger:
        [search] = [event.payload for event in by_id(ledger).values() if isinstance(event.payload, RetrievalRecorded)]
    assert {candidate.turn_position for candidate in search.candidates} == {0}
    assert {candidate.summary_position for candidate in search.candidates} <= {None, 0}

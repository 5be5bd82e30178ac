"""``opm explain`` tells an answer as it was, proves the prompt, and says what is left where not all is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from rich.cells import cell_len

from domain.events import (
    CandidateFound,
    LeftOut,
    MemoryEdited,
    MemoryForgotten,
    NewEvent,
    PromptReport,
    PromptsActivated,
    TurnRecorded,
    UserErased,
    Verdict,
)
from domain.identity import SYSTEM_STREAM, StreamId
from tests.domain.test_audit_reader import blank
from tests.ledgers import ROOT, new_ledger_file, one_of_each, opened, record, record_turn
from tests.ledgers import turn as a_turn
from tests.service.opm import Ran, environment, opm
from tests.service.running import Running
from tests.upstream import Fault, gate_keeps_all

DOG = "My dog is called Bruno."
DOG_QUESTION = "What is the name of my dog?"


def storage_of(service: Running) -> Path:
    return service.ledger.path.parent


def explained(service: Running, *arguments: str) -> Ran:
    return opm(environment(storage_of(service)), "explain", *arguments)


def withdraw(service: Running, user: str, conversation: str, memory_id: str, *, edit_to: str | None = None) -> None:
    """Append what the service appends when a person corrects or withdraws a memory."""
    payload = (
        MemoryForgotten(memory_id=memory_id, turn_id=1)
        if edit_to is None
        else MemoryEdited(memory_id=memory_id, turn_id=1, summary=edit_to)
    )
    event = NewEvent(str(uuid4()), payload, None, memory_id)
    service.services.ledger.append(StreamId(user, conversation), lambda _head: [event]).result()


class TestAnAnswer:
    @pytest.mark.parametrize("stream", [False, True])
    def test_its_prompt_is_made_again_and_proved(self, service: Running, user: str, stream: bool) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        service.tell_all([DOG, "The dog Bruno likes cheese.", "I live in Oslo."], user)
        service.settle()
        service.client.tell("Hello there.", user, "friday")
        asked = service.client.tell(
            DOG_QUESTION,
            user,
            "friday",
            stream=stream,
            retrieve_k=1,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": DOG_QUESTION}],
        )
        ran = explained(service, asked.id, "--json")
        assert ran.status == 0
        trace = ran.json
        assert trace["prompt"]["proof"] == "same_as_sent"
        assert [(m["role"], m["content"]) for m in trace["prompt"]["messages"]] == service.messages()
        assert "Be brief." in trace["prompt"]["messages"][0]["content"]
        assert len(trace["turn"]["replayed"]) == 1
        assert len(trace["turn"]["summarised"]) == 2
        assert [turn["user"] for turn in trace["window"]] == ["Hello there."]
        fates = {candidate["memory_id"]: candidate["fate"] for candidate in trace["candidates"]}
        assert sorted(fates.values()) == ["excluded", "replayed", "summary", "summary"]
        assert trace["gate"]["strategy"] == "llm"

    def test_it_stays_proved_when_memories_are_corrected_withdrawn_and_summed_up_later(
        self, service: Running, user: str
    ) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        facts = [DOG, "The dog Bruno likes cheese.", "The dog sleeps a lot."]
        told = service.tell_all(facts, user)
        service.settle()
        asked = service.client.tell(DOG_QUESTION, user, "friday", retrieve_k=1)
        withdraw(service, user, "facts", told[0], edit_to="The dog is called Bello.")
        withdraw(service, user, "facts", told[1], edit_to="Bello likes ham.")
        withdraw(service, user, "facts", told[2])
        trace = explained(service, asked.id, "--json").json
        assert trace["prompt"]["proof"] == "same_as_sent"
        assert "Bello" not in json.dumps(trace["prompt"])
        since = {candidate["memory_id"]: candidate["since"]["what"] for candidate in trace["candidates"]}
        assert since == {told[0]: "edited", told[1]: "edited", told[2]: "forgotten"}
        assert "since forgotten" in explained(service, asked.id).out

    def test_with_memories_that_had_no_summary_yet(self, service: Running, user: str) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        service.upstream.fail("summary", *[Fault(status=500)] * 2)
        service.tell_all([DOG], user)
        service.settle()
        asked = service.client.tell(DOG_QUESTION, user, "friday", retrieve_k=0)
        trace = explained(service, asked.id, "--json").json
        assert trace["candidates"][0]["shown"]["summary"] is None
        assert trace["prompt"]["proof"] == "same_as_sent"

    def test_by_a_memory_id_and_as_the_last_of_a_user(self, service: Running, user: str) -> None:
        service.client.tell("First.", user)
        asked = service.client.tell("Second.", user)
        service.settle()
        by_memory = explained(service, asked.memory("turn")["memory_id"], "--json")
        last = explained(service, "--last", "--user", user, "--json")
        assert by_memory.json == last.json == explained(service, asked.id, "--json").json
        assert last.json["turn"]["user"] == "Second."

    def test_for_a_person(self, service: Running, user: str) -> None:
        service.tell_all([DOG, "我的猫叫豆豆，今年三岁，它每天都睡在窗台上，阳光好的时候一睡就是一整天。" * 4], user)
        service.settle()
        asked = service.client.tell("我的猫和狗叫什么？ My dog's name?", user, "friday")
        ran = explained(service, asked.id)
        assert ran.status == 0
        for part in ("Question", "Answer", "Window: 0 turns", "Candidates:", "Gate (llm)", "Timings", "same as sent"):
            assert part in ran.out, part
        assert DOG in ran.out
        assert "replayed" in ran.out
        assert max(map(cell_len, ran.out.splitlines())) <= 120

    def test_only_the_prompt_and_all_but_it(self, service: Running, user: str) -> None:
        asked = service.client.tell("Say something.", user)
        only = explained(service, asked.id, "--prompt").out
        assert "Say something." in only
        assert "Timings" not in only
        without = explained(service, asked.id, "--no-prompt").out
        assert "Timings" in without
        assert "\nPrompt" not in without

    def test_long_texts_are_cut_except_in_full(self, service: Running, user: str) -> None:
        asked = service.client.tell("\n".join(f"line {n} " + "x" * 300 for n in range(30)), user)
        short, full = explained(service, asked.id), explained(service, asked.id, "--full")
        assert "line 29" not in short.out
        assert "22 more lines" in short.out
        assert "line 29" in full.out

    def test_texts_cannot_steer_the_terminal(self, service: Running, user: str) -> None:
        asked = service.client.tell("Look: \x1b[31mred\x1b[0m [bold]not bold[/bold] \u202edesrever", user)
        ran = explained(service, asked.id, "--full").out
        assert "\x1b" not in ran
        assert "\u202e" not in ran
        assert "[bold]not bold[/bold]" in ran

    def test_a_degraded_answer_says_why(self, service: Running, user: str) -> None:
        service.upstream.fail("embed", Fault(status=503))
        asked = service.client.tell(DOG_QUESTION, user)
        ran = explained(service, asked.id)
        assert "degraded, embedding_unavailable" in ran.out
        assert "same as sent" in ran.out

    def test_a_failed_turn_says_what_is_there(self, service: Running, user: str) -> None:
        service.tell_all([DOG], user)
        service.settle()
        service.upstream.fail("answer", Fault(status=500, message="no luck"))
        assert service.client.ask(DOG_QUESTION, user, "friday").status == 502
        ran = explained(service, "--last", "--user", user)
        assert ran.status == 0
        assert "FAILED" in ran.out
        assert DOG_QUESTION in ran.out
        assert "same as sent" in ran.out
        trace = explained(service, "--last", "--user", user, "--json").json
        assert trace["state"] == "failed"
        assert [candidate["fate"] for candidate in trace["candidates"]] == ["replayed"]
        assert trace["prompt"]["proof"] == "same_as_sent"

    def test_as_a_process_that_writes_nothing(self, service: Running, user: str) -> None:
        asked = service.client.tell("Hello.", user)
        service.settle()
        head = service.ledger.reader.head()
        ran = subprocess.run(
            [sys.executable, "-m", "service.cli", "explain", asked.id],
            env={"PATH": "", "PYTHONPATH": str(ROOT), **environment(storage_of(service))},
            cwd=storage_of(service),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "same as sent" in ran.stdout
        assert service.ledger.reader.head() == head


class TestWhatIsNotThere:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["chatcmpl-nobody"], "COMPLETION_ID = 'chatcmpl-nobody'"),
            ([], "COMPLETION_ID"),
            (["x", "--last", "--user", "u"], "either"),
            (["--last", "--user", "nobody"], "--user = 'nobody'"),
        ],
    )
    def test_is_named_in_one_line(self, service: Running, arguments: list[str], named: str) -> None:
        ran = explained(service, *arguments)
        assert ran.status == 2
        assert named in ran.err
        assert len(ran.err.strip().splitlines()) == 1

    def test_an_event_that_is_no_answer_is_told_apart(self, service: Running, user: str) -> None:
        memory_id = service.client.tell(DOG, user).memory("turn")["memory_id"]
        withdraw(service, user, "c", memory_id)
        [withdrawn] = [event for event in service.ledger.stream(user) if isinstance(event.payload, MemoryForgotten)]
        ran = explained(service, withdrawn.event_id)
        assert ran.status == 2
        assert "MemoryForgotten" in ran.err
        assert memory_id in ran.err

    def test_no_ledger(self, tmp_path: Path) -> None:
        told = opm(environment(tmp_path), "explain", "chatcmpl-1")
        assert told.status == 1
        assert "STORAGE_DIR" in told.err


class TestOldAndOdd:
    """Answers whose prompt cannot be proved, on a ledger that the test writes itself."""

    def test_a_prompt_that_differs_ends_with_1(self, tmp_path: Path) -> None:
        with opened(new_ledger_file(tmp_path)) as ledger:
            self._activate(ledger_dir=tmp_path)
            report = PromptReport(
                layout="system-replay-window-1",
                system_version="v1",
                budget_tokens=100,
                tokens=10,
                counted="estimate",
                messages_hash="sha256:" + "0" * 64,
            )
            [event] = record(ledger, StreamId("ann", "c"), self._alone(report))
        told = opm(environment(tmp_path), "explain", event.event_id)
        assert told.status == 1
        assert "DIFFERS" in told.out

    def test_schema_1_cannot_be_proved(self, tmp_path: Path) -> None:
        with opened(new_ledger_file(tmp_path)) as ledger:
            self._activate(ledger_dir=tmp_path)
            report = PromptReport(
                layout="system-replay-window-1",
                system_version="v1",
                budget_tokens=100,
                tokens=10,
                counted="estimate",
            )
            [event] = record(ledger, StreamId("ann", "c"), self._alone(report))
        told = opm(environment(tmp_path), "explain", event.event_id, "--json")
        assert told.status == 0
        assert told.json["prompt"]["proof"] == "unproven"
        assert told.json["prompt"]["messages"][0] == {"role": "system", "content": "Be kind."}

    def test_an_imported_turn_has_no_prompt(self, tmp_path: Path) -> None:
        with opened(new_ledger_file(tmp_path)) as ledger:
            imported = self._alone(None).model_copy(update={"imported_from": "chatgpt"})
            event = ledger.append(StreamId("ann", "c"), lambda _head: [NewEvent(str(uuid4()), imported)]).result()[0]
        told = opm(environment(tmp_path), "explain", event.event_id)
        assert told.status == 0
        assert "imported from chatgpt" in told.out
        assert "cannot be made again" in told.out

    def test_every_fate_of_a_candidate_is_told(self, tmp_path: Path) -> None:
        ids = ["window", "dropped", "over", "replayed", "summary", "beside", "crowded"]
        found = CandidateFound(
            memory_id="", turn_position=9, conversation_id="c", turn_id=1, score=0.5, rank=1,
            dense_score=0.5, dense_rank=1, matched="exchange",
        )  # fmt: skip
        candidates = [found.model_copy(update={"memory_id": memory_id}) for memory_id in ids]
        candidates[0] = candidates[0].model_copy(update={"excluded": "recent_window"})
        verdicts = [
            Verdict(n=n, memory_id=memory_id, keep=memory_id not in {"dropped", "over"}, over_limit=memory_id == "over")
            for n, memory_id in enumerate(ids[1:], start=1)
        ]
        by_type = {payload.type: payload for payload in one_of_each()}
        retrieval = by_type["RetrievalRecorded"].model_copy(update={"window": (), "candidates": tuple(candidates)})
        gate = by_type["GateDecided"].model_copy(update={"verdicts": tuple(verdicts)})
        report = PromptReport(
            layout="none", system_version="v1", budget_tokens=9, tokens=9, counted="exact",
            left_out=(LeftOut(part="summary", memory_id="crowded", tokens=5),),
        )  # fmt: skip
        shown = {"replayed": ("replayed",), "summarised": ("summary",), "neighbours": ("beside",)}
        with opened(new_ledger_file(tmp_path)) as ledger:
            events = record(ledger, StreamId("ann", "c"), retrieval, gate, self._alone(report).model_copy(update=shown))
        trace = opm(environment(tmp_path), "explain", events[-1].event_id, "--json").json
        assert {candidate["memory_id"]: candidate["fate"] for candidate in trace["candidates"]} == {
            "window": "excluded",
            "dropped": "dropped",
            "over": "over_limit",
            "replayed": "replayed",
            "summary": "summary",
            "beside": "neighbour",
            "crowded": "no_room",
        }
        told = opm(environment(tmp_path), "explain", events[-1].event_id).out
        for fate in ("in the window", "over the limit", "as summary", "as a neighbor", "kept, no room", "no room   "):
            assert fate in told

    def test_of_an_erased_answer_its_events_are_left(self, tmp_path: Path) -> None:
        path = new_ledger_file(tmp_path)
        with opened(path) as ledger:
            turn, _ = record(ledger, StreamId("ann", "c"), self._alone(None), UserErased(events=1, conversations=1))
        blank(path, "ann")
        assert turn.correlation_id is not None
        told = opm(environment(tmp_path), "explain", turn.correlation_id)
        assert told.status == 0
        assert "erased" in told.out
        assert "TurnRecorded" in told.out
        trace = opm(environment(tmp_path), "explain", turn.correlation_id, "--json").json
        assert (trace["state"], trace["turn"]) == ("erased", None)
        assert trace["prompt"]["messages"] == []
        assert "erased by UserErased" in trace["prompt"]["note"]
        assert "Lisbon" not in json.dumps(trace)

    def test_a_layout_or_a_system_text_that_is_not_known(self, tmp_path: Path) -> None:
        with opened(new_ledger_file(tmp_path)) as ledger:
            odd = record_turn(ledger, StreamId("ann", "c"))
            report = PromptReport(
                layout="system-replay-window-1", system_version="gone", budget_tokens=1, tokens=1, counted="exact"
            )
            [unknown] = record(ledger, StreamId("ann", "d"), self._alone(report))
        for event, said in ((odd, "its layout is 'v1'"), (unknown, "version gone of the system text")):
            told = opm(environment(tmp_path), "explain", event.event_id)
            assert told.status == 0
            assert said in told.out.replace("\n", " ")

    @staticmethod
    def _alone(report: PromptReport | None) -> TurnRecorded:
        return a_turn(1).model_copy(update={"window": (), "replayed": (), "summarised": (), "prompt": report})

    @staticmethod
    def _activate(ledger_dir: Path) -> None:
        with opened(ledger_dir / "ledger.sqlite3") as ledger:
            record(
                ledger,
                SYSTEM_STREAM,
                PromptsActivated(versions={"CHAT_SYSTEM": "v1"}, texts={"CHAT_SYSTEM": "Be kind."}),
            )

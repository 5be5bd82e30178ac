"""The questions of ``docs/audit`` answer right on any history: each answer is computed again from raw events."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from hypothesis import example, given, settings

from benchmarks.audit_questions import questions
from domain.clock import iso
from domain.events import (
    Event,
    GateDecided,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    RerankDecided,
    RetrievalRecorded,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.ledger import Ledger
from domain.origin import is_imported
from projections.audit_index import bring_up_to_date
from tests.audit_history import RICH, STEPS, USERS, Step, hidden_by, history
from tests.test_audit_views import was_asked

QUESTIONS = {question.path.stem[:2]: question for question in questions()}
Row = dict[str, Any]
P = TypeVar("P", bound=Payload)


def any_history(test: Callable[[Ledger], None]) -> Callable[[], None]:
    @settings(deadline=None, max_examples=20)
    @given(STEPS)
    @example(RICH)
    def run(steps: Sequence[Step]) -> None:
        with history(steps) as ledger:
            bring_up_to_date(ledger.reader, ledger.path.parent)
            test(ledger)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def ask(ledger: Ledger, number: str, **parameters: str) -> list[Row]:
    question = QUESTIONS[number]
    columns, rows = question.ask(ledger.path, dict.fromkeys(question.parameters, "") | parameters)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def events(ledger: Ledger, kind: type[P], *, imported: bool = True) -> Iterator[tuple[Event, P]]:
    for event in ledger.reader.events_after(0, 10_000):
        if isinstance(event.payload, kind) and (imported or not is_imported(event.origin)):
            yield event, event.payload


def month(event: Event) -> str:
    return iso(event.recorded_at)[:7]


def shown_in(turn: TurnRecorded) -> dict[str, tuple[str, ...]]:
    return {
        "replayed": turn.replayed,
        "summary_only": turn.summarised,
        "neighbour": turn.neighbours,
        "window": turn.window,
    }


@any_history
def test_01_shows_the_texts_of_that_day(ledger: Ledger) -> None:
    """A summary that was written later is beside the one that was shown, and never in its place."""
    by_position = {event.position: event for event in ledger.reader.events_after(0, 10_000)}
    said = {event.event_id: event.payload for event in by_position.values()}
    searches = {event.correlation_id: payload for event, payload in events(ledger, RetrievalRecorded)}
    for event, turn in events(ledger, TurnRecorded):
        if event.correlation_id is None or event.correlation_id not in searches or turn.client_system is None:
            continue  # which summary an answer of schema 1 was shown is not recorded
        shown_with = {each.memory_id: each.summary_position for each in searches[event.correlation_id].candidates}
        expected = []
        for role, ids in shown_in(turn).items():
            for place, memory_id in enumerate(ids, start=1):
                memory, text = said[memory_id], None
                assert isinstance(memory, TurnRecorded)
                if role == "summary_only" and (at := shown_with.get(memory_id)) is not None:
                    text = getattr(by_position[at].payload, "summary", None)
                expected.append((role, place, text or f"{memory.user}\n{memory.assistant}"))
        found = ask(ledger, "01", answer=event.correlation_id)
        assert [(row["role"], row["place"], row["shown_that_day"]) for row in found] == sorted(expected)


@any_history
def test_03_names_only_what_the_gate_was_asked_about(ledger: Ledger) -> None:
    gates = {event.correlation_id: payload for event, payload in events(ledger, GateDecided, imported=False)}
    turns = {event.correlation_id: payload for event, payload in events(ledger, TurnRecorded)}
    failed = {event.correlation_id: payload for event, payload in events(ledger, TurnFailed)}
    for user in USERS:
        expected = 0
        for event, search in events(ledger, RetrievalRecorded, imported=False):
            turn = turns.get(event.correlation_id) or failed.get(event.correlation_id)
            gate = gates[event.correlation_id]
            dropped = {v.memory_id for v in gate.verdicts if not v.keep and was_asked(gate, v) is not False}
            if turn is not None:
                dropped -= {*turn.replayed, *turn.summarised, *turn.neighbours, *turn.window}
            free = {each.memory_id for each in search.candidates if each.excluded is None}
            expected += len(dropped & free) if event.user_id == user else 0
        assert len(ask(ledger, "03", user=user, since="2000")) == min(expected, 200)


@any_history
def test_04_counts_fallbacks(ledger: Ledger) -> None:
    expected: dict[tuple[str, str | None], list[bool]] = defaultdict(list)
    for _, gate in events(ledger, GateDecided, imported=False):
        if gate.outcome != "skipped":
            expected[gate.strategy, gate.model].append(gate.outcome == "fallback")
    found = {(row["strategy"], row["model"]): (row["decisions"], row["fallbacks"]) for row in ask(ledger, "04")}
    assert found == {key: (len(fell), sum(fell)) for key, fell in expected.items()}


@any_history
def test_05_names_what_no_answer_was_shown(ledger: Ledger) -> None:
    about: defaultdict[tuple[str, str | None], list[Event]] = defaultdict(list)
    for event in ledger.reader.events_after(0, 10_000):
        about[event.user_id, event.causation_id].append(event)
    for user in USERS:
        own = [(event, turn) for event, turn in events(ledger, TurnRecorded) if event.user_id == user]
        used = {
            memory_id
            for _, turn in own
            for role, ids in shown_in(turn).items()
            if role != "window"
            for memory_id in ids
        }
        unused = [event.event_id for event, _ in own if event.event_id not in used]
        expected = [memory_id for memory_id in unused if hidden_by(about[user, memory_id]) is None]
        assert [row["memory_id"] for row in ask(ledger, "05", user=user)] == expected


@any_history
def test_07_leaves_out_what_was_imported(ledger: Ledger) -> None:
    calls: Counter[str] = Counter()
    tokens: Counter[str] = Counter()

    def add(stage: str, usage: Any = None) -> None:
        calls[stage] += 1
        tokens[stage] += usage.prompt_tokens if usage is not None else 0

    for event in ledger.reader.events_after(0, 10_000):
        match event.payload:
            case TurnRecorded() as said if said.imported_from is None:
                add("answer", said.usage)
            case _ if is_imported(event.origin):
                pass
            case GateDecided() as said if said.outcome != "skipped":
                add("gate", said.usage)
            case RerankDecided() as said if said.outcome != "skipped":
                add("rerank", said.usage)
            case SummaryRecorded() as said if said.model != "imported":
                add("summary", said.usage)
            case RetrievalRecorded() as said if said.outcome == "ok":
                add("embed")
    found = {row["stage"]: row for row in ask(ledger, "07", since="2000")}
    assert {stage: found[stage]["calls"] for stage in found if stage in calls} == dict(calls)
    assert {stage: found[stage]["prompt_tokens"] or 0 for stage in found if stage in calls} == dict(tokens)


@any_history
def test_08_counts_questions_and_loses_no_month(ledger: Ledger) -> None:
    asked = Counter(month(e) for e, turn in events(ledger, TurnRecorded) if turn.imported_from is None)
    wrong: Counter[tuple[str, str, str | None]] = Counter()
    for event, failed in events(ledger, TurnFailed, imported=False):
        asked[month(event)] += 1
        wrong[month(event), "no answer", failed.code] += 1
    for event, search in events(ledger, RetrievalRecorded, imported=False):
        if search.outcome == "degraded":
            wrong[month(event), "memory not searched", search.degraded_code] += 1
    found = {(row["month"], row["what"], row["code"]): (row["times"], row["percent"]) for row in ask(ledger, "08")}
    assert found == {key: (times, round(100 * times / asked[key[0]], 2)) for key, times in wrong.items()}


def changes(ledger: Ledger, user: str, *kinds: type[Payload]) -> list[Event]:
    turns = {event.event_id for event, _ in events(ledger, TurnRecorded)}
    found = [event for kind in kinds for event, _ in events(ledger, kind)]
    return [event for event in found if event.user_id == user and event.causation_id in turns]


@any_history
def test_09_counts_the_answers_before_and_20_names_them(ledger: Ledger) -> None:
    for user in USERS:
        own = [(event, turn) for event, turn in events(ledger, TurnRecorded) if event.user_id == user]
        before = Counter[int]()
        rests = set()
        changed = changes(ledger, user, MemoryEdited, MemoryForgotten, MemoryRestored)
        for change in changed:
            for event, turn in own:
                for role, ids in shown_in(turn).items():
                    if role != "window" and change.causation_id in ids and event.position < change.position:
                        before[change.position] += 1
                        if not isinstance(change.payload, MemoryRestored):
                            rests.add((event.correlation_id, role, change.causation_id))
        found = ask(ledger, "09", user=user)
        expected = sorted((change.position for change in changed), reverse=True)
        assert [row["answers_before"] for row in found] == [before[position] for position in expected]
        named = Counter((row["correlation_id"], row["role"]) for row in ask(ledger, "20", user=user))
        assert named == Counter((correlation_id, role) for correlation_id, role, _ in rests)


@any_history
def test_11_to_13_say_what_the_decisions_say(ledger: Ledger) -> None:
    kept: dict[tuple[str, str, str | None], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    judged: dict[tuple[Any, ...], list[bool]] = defaultdict(list)
    searches = {event.correlation_id: (event, search) for event, search in events(ledger, RetrievalRecorded)}
    for event, gate in events(ledger, GateDecided, imported=False):
        if gate.outcome != "ok":
            continue
        decided = [verdict for verdict in gate.verdicts if was_asked(gate, verdict) is not False]
        sums = kept[month(event), gate.strategy, gate.model]
        sums[0] += 1
        sums[1] += len(gate.verdicts) - len(decided)
        sums[2] += len(decided)
        sums[3] += sum(verdict.keep for verdict in decided)
        _, search = searches[event.correlation_id]
        for verdict in decided if gate.model is not None else ():
            key = (event.user_id, search.query, verdict.memory_id, gate.model)
            judged[key].append(verdict.keep or verdict.over_limit)
    found = {
        (row["month"], row["strategy"], row["model"]): [row["decisions"], row["not_asked"], row["decided"], row["kept"]]
        for row in ask(ledger, "11")
    }
    assert found == dict(kept)
    differently = Counter((user, query) for (user, query, *_), said in judged.items() if len(set(said)) == 2)
    rows = ask(ledger, "12")
    assert Counter((row["user_id"], row["query"]) for row in rows) == differently
    for row in rows:
        again = [said for key, said in judged.items() if key[3] == row["model"] and len(said) > 1]
        assert row["percent_of_pairs"] == round(100 * sum(len(set(said)) == 2 for said in again) / len(again), 2)
    scores: dict[str, list[float]] = defaultdict(list)
    for event, search in searches.values():
        if not is_imported(event.origin):
            scores[month(event)] += [each.dense_score for each in search.candidates if each.dense_score is not None]
    means = {row["month"]: (row["candidates"], row["mean_of_candidates"]) for row in ask(ledger, "13")}
    expected = {when: (len(own), sum(own) / len(own)) for when, own in scores.items() if own}
    assert set(means) == set(expected)
    for when, (count, mean) in expected.items():
        assert means[when][0] == count
        assert abs(means[when][1] - mean) < 1e-4


@any_history
def test_16_is_the_memory_of_a_date(ledger: Ledger) -> None:
    everything = list(ledger.reader.events_after(0, 10_000))
    for at in everything[:: max(len(everything) // 4, 1)]:
        for user in USERS:
            own = [event for event in everything if event.user_id == user]
            last = max((e.position for e in everything if e.recorded_at <= at.recorded_at), default=0)
            turns = [
                event.position for event in own if isinstance(event.payload, TurnRecorded) and event.position <= last
            ]
            then = ledger.reader.memories(user, turns, as_of=last)
            found = {row["memory_id"]: row["summary"] for row in ask(ledger, "16", user=user, at=iso(at.recorded_at))}
            assert found == {memory.memory_id: memory.summary for memory in then.values()}

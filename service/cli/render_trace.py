"""A story as a person reads it: one answer in parts, from the question to the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from domain.clock import iso
from domain.events import JsonObject, Usage
from domain.memory import Memory
from service.audit.explain import AnswerTrace, CandidateTrace, type_of
from service.cli.shell import out
from service.cli.texts import cut_lines, one_line, safe, scored

_LINES = 8
_BAR_CELLS = 40
_FATES = {
    "replayed": ("replayed", "bold green"),
    "summary": ("as summary", "green"),
    "neighbour": ("as a neighbor", "green"),
    "no_room": ("kept, no room", "yellow"),
    "over_limit": ("over the limit", "yellow"),
    "dropped": ("dropped", "dim"),
    "excluded": ("excluded", "dim"),
    "kept": ("kept", "green"),
    "undecided": ("not decided on", "dim"),
}
_EXCLUDED = {"recent_window": "in the window", "same_text_as_window": "same words in the window"}
_PART_OF = {"embed": "retrieve", "search": "retrieve", "lexical": "retrieve", "first_token": "answer"}
_ROLE_STYLES = {"system": "bold magenta", "user": "bold cyan", "assistant": "bold green"}


def told(story: AnswerTrace, *, full: bool, with_prompt: bool) -> Iterator[Text | Table | Padding]:
    """Yield the parts of a story; without ``full`` long texts are cut to their place."""
    yield from _header(story, full)
    if story.erased:
        yield from _what_is_left(story)
        return
    yield from _window(story, full)
    yield from _candidates(story, full)
    yield from _came_in(story, full)
    yield from _timings(story)
    if with_prompt:
        yield from prompt_parts(story, full)


def _header(story: AnswerTrace, full: bool) -> Iterator[Text | Padding]:
    ending = story.ending
    said = story.turn or story.failed
    state = "erased" if story.erased else "answered" if story.turn is not None else "FAILED"
    title = Text(safe(ending.correlation_id or ending.event_id), style="bold")
    title.append(f"  {state} {_utc(said.ts if said is not None else ending.recorded_at)}", style="not bold")
    yield title
    if said is None:
        return
    facts = [f"user {one_line(ending.user_id, 60)}", f"conversation {one_line(ending.conversation_id, 60)}"]
    if story.turn is not None:
        turn = story.turn
        facts += [f"turn {turn.turn_id}", f"memory {ending.event_id}"]
        yield _line(facts)
        answered = [f"model {one_line(turn.model)}", f"finish {one_line(turn.finish_reason)}", _tokens(turn.usage)]
        if turn.imported_from is not None:
            answered.append(f"imported from {one_line(turn.imported_from)}")
        yield _line(answered)
    elif story.failed is not None:
        yield _line([*facts, f"model {one_line(story.failed.model)}"])
        yield Text(
            f"status {story.failed.status}, {one_line(story.failed.code)}: {one_line(story.failed.error)}", "red"
        )
    yield from _said("Question", said.user, full)
    if story.turn is not None:
        yield from _said("Answer", story.turn.assistant, full)
        if story.summary is not None:
            yield from _said("Remembered as", story.summary.summary, full)
    elif story.failed is not None and story.failed.partial_assistant:
        yield from _said("Answer, as far as it came", story.failed.partial_assistant, full)


def _what_is_left(story: AnswerTrace) -> Iterator[Text | Table]:
    yield Text("The texts and ids of this answer were erased. What is left are its events and their hashes:")
    table = _table("position", "event", "recorded")
    for event in story.events:
        table.add_row(str(event.position), type_of(event), _utc(event.recorded_at))
    yield table


def _window(story: AnswerTrace, full: bool) -> Iterator[Text]:
    named = story.turn.window if story.turn is not None else story.retrieval.window if story.retrieval else ()
    yield _heading(f"Window: {_count(len(named), 'turn')} of this conversation")
    for memory in story.window:
        yield Text(f"  {memory.turn_id:>3}  {memory.date}  {_exchange(memory, None if full else _room(22))}")


def _candidates(story: AnswerTrace, full: bool) -> Iterator[Text | Table]:
    asked = story.retrieval
    if asked is None:
        yield _heading("Candidates: memory had not been asked yet")
        return
    if asked.outcome == "skipped":
        yield _heading(f"Candidates: none, {one_line(asked.degraded_reason or 'memory was not asked')}")
        return
    where = [f"{asked.mode} search" if asked.mode else "no search"]
    if asked.embedding_model is not None:
        where.append(f"{one_line(asked.embedding_model)}, {asked.dimensions} dimensions")
    if asked.index_position is not None:
        where.append(f"memory as of position {asked.index_position}")
    yield _heading(f"Candidates: {len(asked.candidates)} ({'; '.join(where)})")
    if asked.outcome == "degraded":
        yield Text(f"  degraded, {asked.degraded_code}: {one_line(asked.degraded_reason or '')}", "yellow")
    for name, value in (("fusion", asked.fusion), ("time named in the question", asked.time_range)):
        if value:
            yield Text(f"  {name}: {_pairs(value)}", "dim")
    if story.candidates:
        yield _candidate_table(story.candidates, full)
    yield from _decisions(story)


def _candidate_table(candidates: Sequence[CandidateTrace], full: bool) -> Table:
    by_words = any(item.found.lexical_rank is not None for item in candidates)
    reasons = any(item.verdict is not None and item.verdict.reason for item in candidates)
    columns = ["#", "score", "vectors", *(["words"] if by_words else []), "gate", *(["reason"] if reasons else [])]
    table = _table(*columns, "rerank", "fate", "memory")
    for item in candidates:
        found = item.found
        fate, style = _FATES[item.fate]
        fate = _EXCLUDED.get(found.excluded or "", fate)
        cells = [str(found.rank), f"{found.score:.3f}", scored(found.dense_score, found.dense_rank)]
        if by_words:
            cells.append(scored(found.lexical_score, found.lexical_rank))
        cells.append("" if item.verdict is None else "keep" if item.verdict.keep else "drop")
        if reasons:
            cells.append(
                one_line((item.verdict.reason if item.verdict is not None else None) or "", _reason_room(full))
            )
        rerank = "" if item.place is None else str(item.place)
        if item.rerank_score is not None:
            rerank += f" ({item.rerank_score:.3f})"
        note = f"{item.memory.date} {item.memory.note}" if item.memory is not None else "(not in the ledger)"
        memory = Text(one_line(note), no_wrap=not full, overflow="fold" if full else "ellipsis")
        if item.since is not None:
            memory = Text.assemble((f"[since {item.since.what}] ", "yellow"), memory)
            memory.no_wrap, memory.overflow = not full, "fold" if full else "ellipsis"
        table.add_row(*map(Text, cells), Text(rerank), Text(fate, style), memory)
    return table


def _decisions(story: AnswerTrace) -> Iterator[Text]:
    gate, rerank = story.gate, story.rerank
    if gate is not None:
        kept = sum(verdict.keep for verdict in gate.verdicts)
        done = f"kept {kept} of {len(gate.verdicts)}" if gate.outcome != "skipped" else "skipped"
        yield _decision("Gate", gate.strategy, gate.outcome, [done, gate.note, gate.model, _tokens(gate.usage)])
        if gate.score_rule is not None:
            yield Text(f"  {_pairs(gate.score_rule)}", "dim")
    if rerank is not None:
        done = f"put {rerank.named} in order" if rerank.outcome != "skipped" else "skipped"
        yield _decision(
            "Rerank", rerank.strategy, rerank.outcome, [done, rerank.note, rerank.model, _tokens(rerank.usage)]
        )


def _decision(name: str, strategy: str, outcome: str, facts: Sequence[str | None]) -> Text:
    style = "yellow" if outcome == "fallback" else ""
    line = ", ".join(one_line(fact) for fact in facts if fact)
    return Text(f"{name} ({strategy}{', FALLBACK' if outcome == 'fallback' else ''}): {line}", style)


def _came_in(story: AnswerTrace, full: bool) -> Iterator[Text]:
    turn = story.turn
    if turn is None or turn.prompt is None:
        return
    yield _heading("What came into the prompt")
    for name, ids in (
        ("replayed", turn.replayed),
        ("neighbour", turn.neighbours),
        ("summary", turn.summarised),
    ):
        for memory_id in ids:
            memory = story.memories.get(memory_id)
            if memory is None:
                yield Text(f"  {name:<10}{memory_id} (not in the ledger)")
                continue
            room = None if full else _room(26)
            text = one_line(memory.note, room) if name == "summary" else _exchange(memory, room)
            yield Text(f"  {name:<10}{memory.date}  {text}")
    if not (turn.replayed or turn.summarised or turn.neighbours):
        yield Text("  nothing of persistent memory")
    for item in turn.prompt.left_out:
        yield Text(f"  no room   {item.part}, {item.tokens} tokens: {item.memory_id}", "yellow")


def _timings(story: AnswerTrace) -> Iterator[Text | Table]:
    said = story.turn or story.failed
    if said is None or not said.timings_ms:
        return
    times = {name: ms for name, ms in said.timings_ms.items() if name != "total"}
    asked = story.retrieval
    if asked is not None and asked.outcome != "skipped":
        times |= {"embed": asked.embed_ms, "search": asked.search_ms}
        if asked.lexical_ms:
            times["lexical"] = asked.lexical_ms
    total = said.timings_ms.get("total", max(times.values(), default=0.0))
    yield _heading(f"Timings: {total:.0f} ms in all")
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    order = (
        "window",
        "retrieve",
        "embed",
        "search",
        "lexical",
        "gate",
        "rerank",
        "neighbours",
        "answer",
        "first_token",
    )
    for name in [*(name for name in order if name in times), *(name for name in times if name not in order)]:
        label = f"    of it {name}" if name in _PART_OF else f"  {name}"
        cells = round(_BAR_CELLS * times[name] / total) if total else 0
        bar = Text("█" * cells or "▏", "blue dim" if name in _PART_OF else "blue")
        table.add_row(Text(label.replace("_", " ")), Text(f"{times[name]:.1f} ms"), bar)
    yield table


def prompt_parts(story: AnswerTrace, full: bool) -> Iterator[Text | Padding]:
    """Yield the prompt made again, message by message, and whether it is the one that was sent."""
    again = story.prompt
    if again is None:
        yield _heading("Prompt: the turn ended without an answer, and no prompt of it was recorded")
        return
    report = story.turn.prompt if story.turn is not None else None
    size = f" ({report.tokens} of {report.budget_tokens} tokens, {report.counted})" if report is not None else ""
    style = {"same_as_sent": "bold green", "differs": "bold red"}.get(again.proof, "bold yellow")
    verdict = "cannot be made again: " if again.proof == "not_possible" else ""
    yield Text.assemble((f"\nPrompt{size}: ", "bold"), (f"{verdict}{again.note}", style))
    for message in again.messages:
        yield Text(message["role"], _ROLE_STYLES.get(message["role"], "bold"))
        text = cut_lines(message["content"], None if full else _LINES, out.width - 4)
        yield Padding(Text(text), (0, 0, 0, 2), expand=False)


def _said(title: str, text: str, full: bool) -> Iterator[Text | Padding]:
    yield _heading(title)
    yield Padding(Text(cut_lines(text, None if full else _LINES, out.width - 4)), (0, 0, 0, 2), expand=False)


def _exchange(memory: Memory, cells_max: int | None) -> str:
    each = None if cells_max is None else (cells_max - 3) // 2
    return f"{one_line(memory.user, each)} → {one_line(memory.assistant, each)}"


def _pairs(values: JsonObject) -> str:
    return one_line(", ".join(f"{name} {value}" for name, value in values.items() if value is not None))


def _tokens(usage: Usage | None) -> str:
    return "" if usage is None else f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _utc(moment: datetime) -> str:
    return f"{iso(moment)[:19].replace('T', ' ')} UTC"


def _line(facts: Sequence[str]) -> Text:
    return Text(" · ".join(fact for fact in facts if fact), "dim")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=True, header_style="dim", padding=(0, 1))
    for column in columns:
        last = column == "memory"
        table.add_column(column, no_wrap=not last, ratio=1 if last else None, min_width=24 if last else None)
    return table


def _room(taken: int) -> int:
    return max(out.width - taken, 20)


def _reason_room(full: bool) -> int | None:
    return None if full else 40

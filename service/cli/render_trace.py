"""Render the trace of one answer for a terminal, part by part, from the question to the prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from domain.console import safe
from domain.events import GateDecided, JsonObject, PromptReport, RerankDecided, RetrievalRecorded, Usage
from domain.memory import Memory
from domain.prompt_reconstruction import ReconstructedPrompt
from domain.temporal.zones import in_zone, recorded_zone
from service.audit.backtest_page import counted
from service.audit.explain import AnswerTrace, Stage
from service.cli.shell import out
from service.cli.texts import cell, cut_lines, one_line, scored, table, utc

_LINES = 8
_BAR_CELLS = 40
_STATES = {"failed": "FAILED", "tools_called": "called tools"}
_REASON_CELLS = 40
_FATES = {
    "replayed": ("replayed", "bold green"),
    "summary": ("as summary", "green"),
    "neighbour": ("as a neighbor", "green"),
    "window": ("in the window", "green"),
    "not_asked": ("not asked about", "dim"),
    "no_room": ("kept, no room", "yellow"),
    "over_limit": ("over the limit", "yellow"),
    "dropped": ("dropped", "dim"),
    "excluded": ("excluded", "dim"),
    "kept": ("kept", "green"),
    "undecided": ("not decided on", "dim"),
}
_EXCLUDED = {
    "recent_window": "in the window",
    "same_text_as_window": "same words in the window",
    "older_same_question": "same question, asked again",
    "older_near_duplicate": "same words, said again",
}
_STAGES = (
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
"""The timings of a turn in the order in which they are shown."""
_PARTS_OF_STAGES = frozenset({"embed", "search", "lexical", "first_token"})
_ROLE_STYLES = {"system": "bold magenta", "user": "bold cyan", "assistant": "bold green"}


def render_trace(trace: AnswerTrace, *, full: bool, with_prompt: bool) -> Iterator[Text | Table | Padding]:
    """Yield the parts of a trace; unless ``full``, long texts are cut."""
    yield from _header(trace, full)
    if trace.erased:
        yield from _erased_events(trace)
        return
    yield from _window(trace, full)
    yield from _candidates(trace, full)
    yield from _prompt_memories(trace, full)
    yield from _timings(trace)
    if with_prompt:
        yield from prompt_parts(trace, trace.prompt, full)


def _header(trace: AnswerTrace, full: bool) -> Iterator[Text | Padding]:
    ending = trace.ending
    record = trace.turn or trace.failed
    state = _STATES.get(trace.state, trace.state)
    title = Text(safe(ending.correlation_id or ending.event_id), style="bold")
    title.append(f"  {state} {utc(record.ts if record is not None else ending.recorded_at)}", style="not bold")
    yield title
    if record is None:
        return
    facts = [f"user {one_line(ending.user_id, 60)}", f"conversation {one_line(ending.conversation_id, 60)}"]
    facts.append(f"days of {_zone(trace)}")
    if trace.turn is not None:
        turn = trace.turn
        facts += [f"turn {turn.turn_id}", f"memory {ending.event_id}"]
        yield _line(facts)
        answered = [f"model {one_line(turn.model)}", f"finish {one_line(turn.finish_reason)}", _tokens(turn.usage)]
        if turn.imported_from is not None:
            answered.append(f"imported from {one_line(turn.imported_from)}")
        yield _line(answered)
    elif trace.failed is not None:
        yield _line([*facts, f"model {one_line(trace.failed.model)}"])
        yield Text(
            f"status {trace.failed.status}, {one_line(trace.failed.code)}: {one_line(trace.failed.error)}", "red"
        )
    yield from _text_section("Question", record.user, full)
    if trace.turn is not None:
        yield from _text_section("Answer", trace.turn.assistant, full)
        if trace.summary is not None:
            yield from _text_section("Remembered as", trace.summary.summary, full)
            yield from _call(trace, "summary")
    elif trace.failed is not None and trace.failed.partial_assistant:
        yield from _text_section("Answer, as far as it came", trace.failed.partial_assistant, full)


def _zone(trace: AnswerTrace) -> tzinfo:
    """Return the zone of the person who asked, in which the prompt had its days."""
    report = trace.turn.prompt if trace.turn is not None else None
    asked = trace.retrieval.knobs.get("timezone") if trace.retrieval is not None else None
    return recorded_zone(report.timezone if report is not None else str(asked or "UTC"))


def _day(memory: Memory, trace: AnswerTrace) -> str:
    return in_zone(memory.ts, _zone(trace)).date().isoformat()


def _erased_events(trace: AnswerTrace) -> Iterator[Text | Table]:
    for by in dict.fromkeys(map(str, trace.erasures.values())):
        yield Text(f"This answer was {by}.")
    yield Text("What is left are its events and their hashes:")
    rows = table("position", "event", "recorded")
    for event in trace.events:
        rows.add_row(str(event.position), event.type, utc(event.recorded_at))
    yield rows


def _window(trace: AnswerTrace, full: bool) -> Iterator[Text]:
    named = trace.turn.window if trace.turn is not None else trace.retrieval.window if trace.retrieval else ()
    yield _heading(f"Window: {counted(len(named), 'turn')} of this conversation")
    for memory_id in named:
        memory = trace.memories.get(memory_id)
        if memory is None:
            yield Text(f"       {memory_id} {trace.missing(memory_id)}")
            continue
        yield Text(f"  {memory.turn_id:>3}  {_day(memory, trace)}  {_exchange(memory, _cells_left(22, full))}")


def _candidates(trace: AnswerTrace, full: bool) -> Iterator[Text | Table]:
    asked = trace.retrieval
    gone = trace.erasures.get(RetrievalRecorded.type)
    if asked is None and gone is not None:
        yield _heading(f"Candidates: {gone}")
        yield from _decisions(trace)
        return
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
    if trace.candidates:
        yield _candidate_table(trace, full)
    yield from _decisions(trace)


def _candidate_table(trace: AnswerTrace, full: bool) -> Table:
    candidates = trace.candidates
    by_words = any(item.found.lexical_rank is not None for item in candidates)
    reasons = any(item.verdict is not None and item.verdict.reason for item in candidates)
    columns = ["#", "score", "vectors", *(["words"] if by_words else []), "gate", *(["reason"] if reasons else [])]
    rows = table(*columns, "rerank", "fate", "memory")
    for item in candidates:
        found = item.found
        fate, style = _FATES[item.fate]
        fate = _EXCLUDED.get(found.excluded or "", fate)
        cells = [str(found.rank), f"{found.score:.3f}", scored(found.dense_score, found.dense_rank)]
        if by_words:
            cells.append(scored(found.lexical_score, found.lexical_rank))
        cells.append("" if item.verdict is None else "keep" if item.verdict.keep else "drop")
        if reasons:
            reason = (item.verdict.reason if item.verdict is not None else None) or ""
            cells.append(one_line(reason, None if full else _REASON_CELLS))
        rerank = "" if item.place is None else str(item.place)
        if item.rerank_score is not None:
            rerank += f" ({item.rerank_score:.3f})"
        known = item.memory
        line = f"{_day(known, trace)} {known.line}" if known is not None else trace.missing(found.memory_id)
        memory = cell(line, full=full or known is None)
        if item.since is not None and item.since.erasure is None:
            prefix = f"[since {item.since.what}] "
            memory = cell(prefix + line, full=full)
            memory.stylize("yellow", 0, len(prefix))
        rows.add_row(*map(Text, cells), Text(rerank), Text(fate, style), memory)
    return rows


def _decisions(trace: AnswerTrace) -> Iterator[Text]:
    gate, rerank = trace.gate, trace.rerank
    if gate is not None:
        kept = sum(verdict.keep for verdict in gate.verdicts)
        done = f"kept {kept} of {len(gate.verdicts)}" if gate.outcome != "skipped" else "skipped"
        yield _decision("Gate", gate.strategy, gate.outcome, [done, gate.note, gate.model, _tokens(gate.usage)])
        if gate.score_rule is not None:
            yield Text(f"  {_pairs(gate.score_rule)}", "dim")
    elif (gone := trace.erasures.get(GateDecided.type)) is not None:
        yield Text(f"Gate: {gone}", "yellow")
    yield from _call(trace, "gate")
    if rerank is not None:
        done = f"put {rerank.named} in order" if rerank.outcome != "skipped" else "skipped"
        yield _decision(
            "Rerank", rerank.strategy, rerank.outcome, [done, rerank.note, rerank.model, _tokens(rerank.usage)]
        )
    elif (gone := trace.erasures.get(RerankDecided.type)) is not None:
        yield Text(f"Rerank: {gone}", "yellow")
    yield from _call(trace, "rerank")


def _call(trace: AnswerTrace, stage: Stage) -> Iterator[Text]:
    rebuilt = trace.calls.get(stage)
    if rebuilt is not None:
        yield Text.assemble(f"  prompt of the {stage}: ", _verdict(rebuilt))


def _decision(name: str, strategy: str, outcome: str, facts: Sequence[str | None]) -> Text:
    style = "yellow" if outcome == "fallback" else ""
    line = ", ".join(one_line(fact) for fact in facts if fact)
    return Text(f"{name} ({strategy}{', FALLBACK' if outcome == 'fallback' else ''}): {line}", style)


def _prompt_memories(trace: AnswerTrace, full: bool) -> Iterator[Text]:
    turn = trace.turn
    if turn is None or turn.prompt is None:
        return
    yield _heading("What came into the prompt")
    for name, ids in (
        ("replayed", turn.replayed),
        ("neighbour", turn.neighbours),
        ("summary", turn.summarised),
    ):
        for memory_id in ids:
            memory = trace.memories.get(memory_id)
            if memory is None:
                yield Text(f"  {name:<10}{memory_id} {trace.missing(memory_id)}")
                continue
            cells_max = _cells_left(26, full)
            text = one_line(memory.line, cells_max) if name == "summary" else _exchange(memory, cells_max)
            yield Text(f"  {name:<10}{_day(memory, trace)}  {text}")
    if not (turn.replayed or turn.summarised or turn.neighbours):
        yield Text("  nothing of persistent memory")
    for item in turn.prompt.left_out:
        instead = ", shown as its summary" if item.memory_id in turn.summarised else ""
        yield Text(f"  no room   {item.part}, {item.tokens} tokens: {item.memory_id}{instead}", "yellow")
    for cut in turn.prompt.shortened:
        yield Text(f"  shortened to {cut.chars} characters of question and answer: {cut.memory_id}", "yellow")


def _timings(trace: AnswerTrace) -> Iterator[Text | Table]:
    record = trace.turn or trace.failed
    if record is None or not record.timings_ms:
        return
    times = {name: ms for name, ms in record.timings_ms.items() if name != "total"}
    asked = trace.retrieval
    if asked is not None and asked.outcome != "skipped":
        times |= {"embed": asked.embed_ms, "search": asked.search_ms}
        if asked.lexical_ms:
            times["lexical"] = asked.lexical_ms
    total = record.timings_ms.get("total", max(times.values(), default=0.0))
    yield _heading(f"Timings: {total:.0f} ms in all")
    rows = Table.grid(padding=(0, 1))
    rows.add_column()
    rows.add_column(justify="right")
    rows.add_column()
    for name in [*(name for name in _STAGES if name in times), *(name for name in times if name not in _STAGES)]:
        is_part = name in _PARTS_OF_STAGES
        label = f"    of it {name}" if is_part else f"  {name}"
        cells = round(_BAR_CELLS * times[name] / total) if total else 0
        bar = Text("█" * cells or "▏", "blue dim" if is_part else "blue")
        rows.add_row(Text(label.replace("_", " ")), Text(f"{times[name]:.1f} ms"), bar)
    yield rows


def prompt_parts(trace: AnswerTrace, rebuilt: ReconstructedPrompt | None, full: bool) -> Iterator[Text | Padding]:
    """Yield a prompt of the trace, message by message, and whether it is the one that was sent."""
    if rebuilt is None:
        why = "it was erased" if trace.erased else "no model was asked, or the turn ended before it was"
        yield _heading(f"Prompt: {why}")
        return
    asked = trace.turn or trace.failed
    report = asked.prompt if asked is not None and rebuilt is trace.prompt else None
    size = f" ({_size(report)})" if report is not None else ""
    yield Text.assemble((f"\nPrompt{size}: ", "bold"), _verdict(rebuilt))
    for message in rebuilt.messages:
        yield Text(message["role"], _ROLE_STYLES.get(message["role"], "bold"))
        yield _indented(message["content"], full)


def _verdict(rebuilt: ReconstructedPrompt) -> tuple[str, str]:
    """Return what a prompt is proven to be, and the style to say it in."""
    style = {"same_as_sent": "bold green", "differs": "bold red"}.get(rebuilt.proof, "bold yellow")
    return f"{'cannot be made again: ' if rebuilt.proof == 'not_possible' else ''}{rebuilt.note}", style


def _size(report: PromptReport) -> str:
    size = f"{report.tokens} of {report.budget_tokens} tokens, {report.counted}"
    shares = report.shares
    if shares is None:
        return size
    return f"{size}: {shares.fixed} system and question, {shares.window} window, {shares.memory} memory"


def _text_section(title: str, text: str, full: bool) -> Iterator[Text | Padding]:
    yield _heading(title)
    yield _indented(text, full)


def _indented(text: str, full: bool) -> Padding:
    return Padding(Text(cut_lines(text, None if full else _LINES, out.width - 4)), (0, 0, 0, 2), expand=False)


def _exchange(memory: Memory, cells_max: int | None) -> str:
    each = None if cells_max is None else (cells_max - 3) // 2
    return f"{one_line(memory.user, each)} → {one_line(memory.assistant, each)}"


def _pairs(values: JsonObject) -> str:
    return one_line(", ".join(f"{name} {value}" for name, value in values.items() if value is not None))


def _tokens(usage: Usage | None) -> str:
    return "" if usage is None else f"{usage.prompt_tokens} + {usage.completion_tokens} tokens"


def _line(facts: Sequence[str]) -> Text:
    return Text(" · ".join(fact for fact in facts if fact), "dim")


def _heading(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _cells_left(taken: int, full: bool) -> int | None:
    return None if full else max(out.width - taken, 20)

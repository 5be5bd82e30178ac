"""The report of a backtest as one HTML file: no script, no external resources, light and dark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from domain.events import JsonObject

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #444); --in: light-dark(#116329, #6fdd8b);
  --out: light-dark(#a40e26, #ff9492); --quiet: light-dark(#666, #999) }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.number, td.date { white-space: nowrap }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem }
dt { color: var(--quiet) } dd { margin: 0 }
details { border-bottom: 1px solid var(--line); padding: .4rem 0 } summary { cursor: pointer }
ul { list-style: none; margin: .4rem 0; padding-left: 1.2rem } .quiet { color: var(--quiet) }
.in::before { content: "+ "; color: var(--in) } .out::before { content: "\\2212 "; color: var(--out) }
.moved::before { content: "~ "; color: var(--quiet) } .in, .out, .moved { overflow-wrap: anywhere }
.trouble { color: var(--out) }
"""
_CHANGES = (
    ("came_in", "in", ""),
    ("went_out", "out", ""),
    ("replayed_instead", "moved", "replayed instead of summed up: "),
    ("summary_instead", "moved", "summed up instead of replayed: "),
)


def page_of(report: JsonObject) -> str:
    """Return the page. Every text of a person or a model is escaped."""
    title = f"Backtest of {report['user_id']}"
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{escape(title)}</h1>",
            *_summary(report),
            *_memories(report),
            *_questions(report),
            "</body></html>",
            "",
        )
    )


def _summary(report: JsonObject) -> Iterator[str]:
    if not report["complete"]:
        why = report["trouble"] or f"no decision about {counted(report['unanswered'], 'question')}"
        yield f'<p class="trouble">Not complete: {escape(str(why))}</p>'
    yield "<dl>"
    for name, value in summary_lines(report):
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"


def summary_lines(report: JsonObject) -> Iterator[tuple[str, str]]:
    """Yield the summary of all questions, as pairs of label and text."""
    total = report["totals"]
    yield "settings", ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    yield "questions", f"{total['questions']} of positions {report['after'] + 1} to {report['until']}"
    if report["left_out"]:
        yield "left out", ", ".join(f"{count} ({reason})" for reason, count in report["left_out"].items())
    if total["questions"]:
        yield (
            "agreement",
            f"{total['agreement']:.3f} of the memories shown, {total['agreement_replayed']:.3f} of those replayed; "
            f"{counted(total['exact'], 'question')} exactly as they were",
        )
    yield "changes", f"{total['came_in']} came in, {total['went_out']} went out"
    yield "spent", _spent(total["spent"])
    yield "spent then", _spent(total["spent_then"])
    embedded = (counted(total["questions_embedded"], "question"), counted(total["memories_embedded"], "text"))
    yield "embedded", f"{embedded[0]}, {embedded[1]} of memories"
    if total["taken_over"]:
        yield "taken over", f"{counted(total['taken_over'], 'decision')} that nothing had changed"
    if total["fallbacks"]:
        yield "fallbacks", f"{counted(total['fallbacks'], 'answer')} of the chat model could not be read"


def counted(number: int, thing: str) -> str:
    """Return a number with its noun, in the plural where needed: "2 calls"."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _spent(spent: Mapping[str, Any]) -> str:
    tokens = f"{spent['prompt_tokens']} + {spent['completion_tokens']} tokens"
    return f"{counted(spent['calls'], 'call')} of models, {tokens}"


def _memories(report: JsonObject) -> Iterator[str]:
    if not report["memories"]:
        return
    yield "<h2>Memories that came in or went out</h2><table><thead><tr>"
    yield '<th class="number">in</th><th class="number">out</th><th>date</th><th>memory</th></tr></thead><tbody>'
    for memory in report["memories"]:
        yield f'<tr><td class="number">{memory["came_in"]}</td><td class="number">{memory["went_out"]}</td>'
        yield f'<td class="date">{escape(memory["date"][:10])}</td><td>{escape(memory["note"])}</td></tr>'
    yield "</tbody></table>"


def _questions(report: JsonObject) -> Iterator[str]:
    notes = {memory["memory_id"]: memory["note"] for memory in report["memories"]}
    yield "<h2>Question by question</h2>"
    for question in report["per_question"]:
        opened = "" if question["exact"] else " open"
        yield f"<details{opened}><summary>{escape(question['question'])} "
        about = f"{question['agreement']:.2f} · {escape(question['recorded_at'][:10])}"
        yield f'<span class="quiet">{about}</span></summary>'
        yield "<ul>"
        if question["exact"]:
            yield f'<li class="quiet">as it was: {len(question["now"]["replayed"])} replayed, '
            yield f"{len(question['now']['summaries'])} as summaries</li>"
        for field, kind, said in _CHANGES:
            for memory_id in question[field]:
                yield f'<li class="{kind}">{said}{escape(notes.get(memory_id, memory_id))}</li>'
        yield f'</ul><div class="quiet">{escape(question["correlation_id"] or "")} · {_spent(question["spent"])}</div>'
        yield "</details>"

"""``opm explain``: the trace of one answer, for a person to read."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from domain.audit_reader import AuditReader
from domain.errors import InvalidInput
from service.audit.explain import ANSWER_WITH_TOOLS, FAILED_SUMMARY, find_answer, trace_of
from service.cli.render_trace import prompt_parts, render_trace
from service.cli.shell import FAILED, AsJson, opened_audit, out, print_json, print_parts, user_named


class PromptStage(StrEnum):
    """The model calls of an answer."""

    GATE = "gate"
    RERANK = "rerank"
    ANSWER = "answer"
    SUMMARY = "summary"


_NAMES = {
    PromptStage.GATE: ("gate",),
    PromptStage.RERANK: ("rerank",),
    PromptStage.ANSWER: (ANSWER_WITH_TOOLS, "answer"),
    PromptStage.SUMMARY: (FAILED_SUMMARY, "summary"),
}
"""What each is called among the proofs of a trace."""


def explain(
    completion_id: Annotated[
        str | None, typer.Argument(metavar="[COMPLETION_ID]", help="An answer's id, or a turn's memory id.")
    ] = None,
    *,
    last: Annotated[bool, typer.Option("--last", help="The newest answer of --user.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", metavar="U", help="Whose newest answer.")] = None,
    prompt: Annotated[bool | None, typer.Option("--prompt/--no-prompt", help="Only the prompt; or all but it.")] = None,
    prompt_of: Annotated[
        PromptStage | None, typer.Option("--prompt-of", help="Only the prompt of this call, whole.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Cut no text short.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how one answer came about, and make the prompt of each model call again.

    Ends with 1 when one of these prompts differs from what was sent.
    """
    with opened_audit() as reader:
        events = find_answer(reader, _asked_for(reader, completion_id, last=last, user=user))
        trace = trace_of(reader, events)
    if as_json:
        print_json(trace.as_json())
    elif prompt is True or prompt_of is not None:
        stage = prompt_of or PromptStage.ANSWER
        made = [rebuilt for name, rebuilt in trace.proofs if name in _NAMES[stage]]
        for rebuilt in made or (None,):
            for line in prompt_parts(trace, rebuilt, full=True):
                out.print(line, soft_wrap=True)
    else:
        print_parts(render_trace(trace, full=full, with_prompt=prompt is None))
    if any(rebuilt.proof == "differs" for _, rebuilt in trace.proofs):
        raise typer.Exit(FAILED)


def _asked_for(reader: AuditReader, completion_id: str | None, *, last: bool, user: str | None) -> str:
    if completion_id is not None:
        if last or user is not None:
            raise InvalidInput("COMPLETION_ID", completion_id, "give either an id or --last --user U")
        return completion_id
    if not last or user is None:
        raise InvalidInput("COMPLETION_ID", None, "give the id of an answer, or --last --user U")
    newest = reader.last_question(user_named(reader, user))
    if newest is None:
        raise InvalidInput("--user", user, "name a user who has asked something")
    return newest.correlation_id or newest.event_id

"""``opm explain``: the trace of one answer, for a person to read."""

from __future__ import annotations

from typing import Annotated

import typer

from domain.audit_reader import AuditReader
from domain.errors import InvalidInput
from service.audit.explain import find_answer, trace_of
from service.cli.render_trace import prompt_parts, render_trace
from service.cli.shell import FAILED, AsJson, opened_audit, out, print_json, print_parts, user_named


def explain(
    completion_id: Annotated[
        str | None, typer.Argument(metavar="[COMPLETION_ID]", help="An answer's id, or a turn's memory id.")
    ] = None,
    *,
    last: Annotated[bool, typer.Option("--last", help="The newest answer of --user.")] = False,
    user: Annotated[str | None, typer.Option("--user", "-u", metavar="U", help="Whose newest answer.")] = None,
    prompt: Annotated[bool | None, typer.Option("--prompt/--no-prompt", help="Only the prompt; or all but it.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Cut no text short.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how one answer came about, and reconstruct its prompt.

    Ends with 1 when the reconstructed prompt differs from the one that was sent.
    """
    with opened_audit() as reader:
        events = find_answer(reader, _asked_for(reader, completion_id, last=last, user=user))
        trace = trace_of(reader, events)
    if as_json:
        print_json(trace.as_json())
    elif prompt is True:
        for line in prompt_parts(trace, full=True):
            out.print(line, soft_wrap=True)
    else:
        print_parts(render_trace(trace, full=full, with_prompt=prompt is None))
    if trace.prompt is not None and trace.prompt.proof == "differs":
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

"""``opm backtest``: replay past questions with other settings and compare what is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text
from tqdm import tqdm

from domain.audit_reader import AuditReader
from domain.errors import InvalidInput
from domain.events import JsonObject, RetrievalMode
from domain.settings import load_settings
from projections.embedding.model_router import untagged
from service.audit.backtest import Backtest, Period, run_backtest
from service.audit.backtest_page import page_of, summary_lines
from service.audit.backtest_report import report_of
from service.audit.replay import Variant
from service.cli import moments
from service.cli.shell import FAILED, AsJson, User, complain, opened_audit, print_json, print_parts, user_named
from service.cli.texts import cell, one_line, table
from service.settings import ServiceSettings

_QUESTIONS_SHOWN = 50
_MEMORIES_SHOWN = 20


def backtest(
    *,
    user: User,
    since: Annotated[str, typer.Option("--since", metavar="POSITION|DATE", help=f"Questions after {moments.HELP}.")],
    until: Annotated[str | None, typer.Option("--until", metavar="POSITION|DATE", help="Questions until then.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many questions, oldest first.")
    ] = None,
    candidate_n: Annotated[int | None, typer.Option("--candidate-n", min=0, max=500, help="Memories proposed.")] = None,
    retrieve_k: Annotated[int | None, typer.Option("--retrieve-k", min=0, max=50, help="Memories replayed.")] = None,
    gate: Annotated[
        Literal["llm", "score", "off"] | None, typer.Option("--gate", help="Who decides which memories are kept.")
    ] = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="The same as --gate off.")] = False,
    gate_model: Annotated[
        str | None, typer.Option("--gate-model", metavar="M", help="The gate's model at LLM_BASE_URL.")
    ] = None,
    retrieval: Annotated[
        RetrievalMode | None, typer.Option("--retrieval", help="Search by meaning, by words, or by both.")
    ] = None,
    embedding_model: Annotated[
        str | None, typer.Option("--embedding-model", metavar="E", help="Search with this model.")
    ] = None,
    emb_base_url: Annotated[
        str | None, typer.Option("--emb-base-url", metavar="URL", help="Where that model is (default: EMB_BASE_URL).")
    ] = None,
    ask_again: Annotated[
        bool, typer.Option("--ask-again", help="Ask again for decisions whose inputs did not change.")
    ] = False,
    name: Annotated[str | None, typer.Option("--name", help="Name of the results file (default: by settings).")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard earlier results of that name.")] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Decisions at a time.")] = 4,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the report as an HTML page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a user's past questions with other settings; a setting not given stays what it was for each question.

    Nothing is written to the ledger. An interrupted run continues where it stopped. Ends with 1 when not every question
    could be replayed.
    """
    variant = Variant(
        candidate_n=candidate_n,
        retrieve_k=retrieve_k,
        gate=_gate(gate, no_gate=no_gate, gate_model=gate_model),
        gate_model=gate_model,
        embedding_model=embedding_model,
        retrieval=retrieval,
        ask_again=ask_again,
    )
    settings = _settings(embedding_model, emb_base_url)
    if html is not None and not html.resolve().parent.is_dir():
        raise InvalidInput("--html", str(html), "name a file in a folder that exists")
    with opened_audit(settings) as reader:
        user = user_named(reader, user)
        period = _period(reader, user, since, until, limit)
        total = reader.count_retrievals(user, period.after, period.until)
        with (
            tqdm(total=min(total, limit or total), desc="questions", unit="question", disable=None) as progress,
            tqdm(desc="memories embedded", unit="text", disable=None, delay=1.0) as embedded,
        ):
            found = asyncio.run(
                run_backtest(
                    reader,
                    settings,
                    period,
                    variant,
                    name=name,
                    fresh=fresh,
                    concurrency=concurrency,
                    on_progress=progress.update,
                    on_embedded=embedded.update,
                )
            )
        report = report_of(reader, found)
    if html is not None:
        html.write_text(page_of(report), encoding="utf-8")
    if as_json:
        print_json(report)
    else:
        print_parts(_render(report))
    _finish(found)


def _finish(found: Backtest) -> None:
    if found.complete:
        return
    why = found.trouble or "the chat model gave no decision"
    complain(f"not every question was replayed ({why}): run it again to continue")
    raise typer.Exit(FAILED)


def _gate(
    gate: Literal["llm", "score", "off"] | None, *, no_gate: bool, gate_model: str | None
) -> Literal["llm", "score", "off"] | None:
    if no_gate and gate not in (None, "off"):
        raise InvalidInput("--no-gate", True, f"leave it out, or leave out --gate {gate}")
    chosen = "off" if no_gate else gate
    if gate_model is not None and chosen not in (None, "llm"):
        raise InvalidInput("--gate-model", gate_model, f"leave it out, or leave out --gate {chosen}")
    return "llm" if gate_model is not None else chosen


def _settings(embedding_model: str | None, emb_base_url: str | None) -> ServiceSettings:
    """Return the settings for another embedding model, without the prefixes and dimensions of the configured one."""
    if embedding_model is None:
        if emb_base_url is not None:
            raise InvalidInput("--emb-base-url", emb_base_url, "name the model there with --embedding-model")
        return load_settings(ServiceSettings)
    configured = load_settings(ServiceSettings)
    given: dict[str, object] = {"emb_model": embedding_model}
    if emb_base_url is not None:
        given["emb_base_url"] = emb_base_url
    if untagged(embedding_model) != untagged(configured.emb_model):
        given |= {"embedding_dims": 0, "emb_query_prefix": None, "emb_passage_prefix": None}
    return load_settings(ServiceSettings, **given)


def _period(reader: AuditReader, user: str, since: str, until: str | None, limit: int | None) -> Period:
    if not reader.has_events(user):
        raise InvalidInput("--user", user, "name a user who has asked something")
    after = moments.position_of(reader, "--since", since)
    end = moments.position_of(reader, "--until", until) if until is not None else reader.head_position()
    if end < after:
        raise InvalidInput("--until", until, "give a moment that is not before --since")
    return Period(user, after, end, limit)


def _render(report: JsonObject) -> Iterator[Text | Table]:
    yield Text(f"Backtest of {one_line(report['user_id'], 60)}", "bold")
    summary = Table.grid(padding=(0, 2))
    summary.add_column(style="dim")
    summary.add_column(overflow="fold")
    for label, value in [*summary_lines(report), ("results", report["results_file"])]:
        summary.add_row(Text(label), Text(one_line(value)))
    yield summary
    changed = [question for question in report["per_question"] if not question["exact"]]
    if changed:
        yield Text("\nQuestions that would have been shown other memories, those that change most first", "bold")
        yield _question_table(changed)
        if len(changed) > _QUESTIONS_SHOWN:
            yield Text(f"… {len(changed) - _QUESTIONS_SHOWN} more, see --json or --html", "dim")
    if report["memories"]:
        yield Text("\nMemories that came in or went out", "bold")
        yield _memory_table(report["memories"][:_MEMORIES_SHOWN])


def _question_table(changed: list[JsonObject]) -> Table:
    numbers = ("agreement", "in", "out", "moved")
    rows = table(*numbers, "date", "question", fill="question", right=numbers)
    for question in sorted(changed, key=lambda item: item["agreement"])[:_QUESTIONS_SHOWN]:
        moved = len(question["replayed_instead"]) + len(question["summary_instead"])
        rows.add_row(
            f"{question['agreement']:.2f}",
            Text(f"+{len(question['came_in'])}", "green"),
            Text(f"-{len(question['went_out'])}", "red"),
            f"~{moved}",
            question["recorded_at"][:10],
            cell(question["question"]),
        )
    return rows


def _memory_table(memories: list[JsonObject]) -> Table:
    rows = table("in", "out", "date", "memory", right=("in", "out"))
    for memory in memories:
        rows.add_row(
            Text(f"+{memory['came_in']}", "green"),
            Text(f"-{memory['went_out']}", "red"),
            memory["date"][:10],
            cell(memory["note"]),
        )
    return rows

"""``opm erase`` and ``opm retention``: remove a person, or a part of memory, from everything in ``STORAGE_DIR``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from domain.errors import InvalidInput
from domain.identity import StreamId, check_id
from domain.ledger import Ledger
from domain.origin import command_origin
from domain.part_erasure import Part, part_before, part_of_conversation, part_of_memories
from domain.settings import StorageSettings, load_settings
from projections.backup.known_backups import known_backups, remove_partials
from projections.erasure import ErasedUser, Extent, erase_user, extent_of
from projections.part_erasure import ErasedPart, erase_older, erase_part
from service.cli.shell import AsJson, User, err, opened_ledger, out, print_json, user_named
from service.retention import kept_from

_NAMED_MAX = 20


def erase(
    user: User,
    memory: Annotated[
        list[str] | None, typer.Option("--memory", metavar="ID", help="Only this memory; may be repeated.")
    ] = None,
    conversation: Annotated[
        str | None, typer.Option("--conversation", metavar="C", help="Only this conversation.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be removed, but change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a user, one memory or one conversation: texts in the ledger, files, vectors. This cannot be undone.

    The service may be running. If interrupted, the same command or the next start of the service continues. Of a part,
    the ids stay; other memories that quote it, or are answers given with it, are named and stay too.
    """
    if memory and conversation is not None:
        raise InvalidInput("--memory", memory[0], "give either memories or a conversation")
    settings = load_settings(StorageSettings)
    with opened_ledger(settings) as ledger:
        user_id = user_named(ledger.persons, user)
        remove_partials(settings.storage_dir)
        if memory or conversation is not None:
            choose = _chosen(ledger, user_id, memory or (), conversation)
            _erase_part(ledger, settings, user_id, choose, reason, yes=yes, dry_run=dry_run, as_json=as_json)
            return
        if dry_run:
            _say_extent(extent_of(ledger, settings.storage_dir, user_id), settings.storage_dir, as_json)
            return
        if not yes:
            _confirm("everything the user ever said", user_id)
        done = erase_user(ledger, settings.storage_dir, user_id, command_origin("opm erase", reason))
    _say_done(done, settings.storage_dir, as_json)


def retention(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be removed, but change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase now what is older than RETENTION_DAYS. The service does it once a day where that is set."""
    settings = load_settings(StorageSettings)
    if not settings.retention_days:
        raise InvalidInput("RETENTION_DAYS", 0, "set it to a number of days: 0 keeps everything")
    with opened_ledger(settings) as ledger:
        remove_partials(settings.storage_dir)
        moment = kept_from(ledger, settings.retention_days)
        if dry_run:
            parts = [part_before(ledger.persons, user_id, moment) for user_id in ledger.persons.all_users()]
            memories = sum(len(part.memory_ids) for part in parts)
            events = sum(len(part.positions) for part in parts)
            counts = {"before": moment.isoformat(), "memories": memories, "events": events}
        else:
            done = erase_older(ledger, settings.storage_dir, moment, command_origin("opm retention"))
            counts = {"before": moment.isoformat(), "memories": done.memories, "events": done.events}
    if as_json:
        print_json({"dry_run": dry_run, **counts, **_backups(settings.storage_dir)})
        return
    would = "would be " if dry_run else ""
    out.print(
        f"{counts['memories']} memories from before {moment.date()} {would}erased, {counts['events']} events in all"
    )
    _say_backups(settings.storage_dir)


def _chosen(ledger: Ledger, user_id: str, memories: Sequence[str], conversation: str | None) -> Callable[[], Part]:
    """Return what finds the part that the options mean."""
    if conversation is None:
        return lambda: part_of_memories(ledger.persons, user_id, memories)
    name = check_id(
        "--conversation", conversation, lambda spelling: ledger.persons.has_conversation(StreamId(user_id, spelling))
    )
    return lambda: part_of_conversation(ledger.persons, StreamId(user_id, name))


def _erase_part(
    ledger: Ledger,
    settings: StorageSettings,
    user_id: str,
    choose: Callable[[], Part],
    reason: str | None,
    *,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    part = choose()
    if dry_run:
        counts = ErasedPart(len(part.memory_ids), len(part.positions), len(part.conversations), 0, part.said_in)
        _say_part(counts, settings.storage_dir, as_json, would="would be ")
        return
    if not yes:
        _confirm(f"{len(part.memory_ids)} memories of the user", user_id)
    _say_part(
        erase_part(ledger, settings.storage_dir, user_id, choose, reason, command_origin("opm erase")),
        settings.storage_dir,
        as_json,
    )


def _say_part(done: ErasedPart, storage_dir: Path, as_json: bool, would: str = "") -> None:
    if as_json:
        print_json({**asdict(done), "dry_run": bool(would), **_backups(storage_dir)})
        return
    out.print(f"{would}erased: {done.memories} memories, {done.events} events blanked", markup=False)
    if done.said_in:
        named = ", ".join(done.said_in[:_NAMED_MAX])
        more = f" and {len(done.said_in) - _NAMED_MAX} more" if len(done.said_in) > _NAMED_MAX else ""
        out.print(f"quoted by, or shown for the answer of: {named}{more}", markup=False)
        out.print("these are memories of their own and stay; look at them, and erase them with --memory", markup=False)
    _say_backups(storage_dir)


def _confirm(what: str, user_id: str) -> None:
    err.print(f"This removes {what}, and cannot be undone.", markup=False)
    typed = typer.prompt("Type the user id to continue", err=True)
    if typed != user_id:
        raise InvalidInput("--user", typed, "the typed id is another one: nothing was erased")


def _say_extent(extent: Extent, storage_dir: Path, as_json: bool) -> None:
    if as_json:
        print_json({**extent.model_dump(), **_backups(storage_dir)})
        return
    out.print(f"{extent.events} events in {extent.conversations} conversations and {extent.files} files would go")
    _say_backups(storage_dir)


def _say_done(done: ErasedUser, storage_dir: Path, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(done), **_backups(storage_dir)})
        return
    out.print(
        f"erased: {done.events} events blanked, {done.files} files and {done.vectors} vectors removed, "
        f"the ledger in {storage_dir} written anew",
        markup=False,
    )
    out.print(f"in the ledger the user is {done.pseudonym} from now on", markup=False)
    if done.recorded_since:
        out.print(
            f"{done.recorded_since} events were recorded for this user meanwhile: somebody still chats. "
            "Run the same command again once that has ended",
            markup=False,
        )
    _say_backups(storage_dir)


def _backups(storage_dir: Path) -> dict[str, list[str]]:
    """Return the paths of all known copies, and of those that are not there now."""
    paths = [backup.path for backup in known_backups(storage_dir)]
    return {"backups": paths, "backups_missing": [path for path in paths if not Path(path).exists()]}


def _say_backups(storage_dir: Path) -> None:
    found = _backups(storage_dir)
    for path in found["backups"]:
        if path in found["backups_missing"]:
            out.print(f"a backup was at {path}: if it lies elsewhere now, it still holds the user", markup=False)
        else:
            out.print(f"still holds the user: {path} (a backup made earlier)", markup=False)
    if not found["backups"]:
        out.print("no backup is known here; copies made by other means still hold the user", markup=False)

"""``python -m projections.rebuild``: what an operator does with the indices, with or without a running service.

By default it builds the indices of the configured embedding model and activates that model; run it after a change of
the embedding model. Options tell what that would cost, compare the indices with the ledger, or drop what is out of use.
Results go to standard output (``--json``: one JSON document), everything else to standard error. Exit status: 0 done,
1 something differs or failed, 2 bad arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from sqlalchemy.exc import DatabaseError

from domain.console import print_any_text
from domain.errors import EmbeddingUnavailable, InvalidInput, OpmError
from domain.identity import check_id
from domain.ledger import Ledger
from domain.private_files import given_to_owner, private_by_default
from domain.settings import load_settings, new_ledger_notice, without_secrets
from migrations.runner import migrate
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.embedding.known_addresses import remember_address
from projections.rebuild.generation import Rebuilt, only_one, rebuild
from projections.rebuild.plan import Plan, plan
from projections.rebuild.prune import Pruned, prune
from projections.settings import ProjectionSettings, http_url
from projections.verification.indices import Difference, verify_indices

log = logging.getLogger(__name__)

__all__ = ["BAD_ARGUMENTS", "DONE", "FAILED", "main", "rebuild"]

DONE, FAILED, BAD_ARGUMENTS = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit status: 0 done, 1 something differs or failed, 2 bad arguments."""
    print_any_text()
    private_by_default()
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        settings = _settings(given)
        with given_to_owner(settings.storage_dir):
            return _run(settings, given)
    except InvalidInput as error:
        sys.stderr.write(f"rebuild: {error}\n")
        return BAD_ARGUMENTS
    except EmbeddingUnavailable as error:
        sys.stderr.write(f"rebuild: {error}; what was embedded is kept, run it again to go on\n")
        return FAILED
    except OpmError as error:
        sys.stderr.write(f"rebuild: {error}\n")
        return FAILED
    except DatabaseError as error:
        sys.stderr.write(
            f"rebuild: a database is broken ({error.orig}): see what `opm verify` says of the ledger; if "
            "that is well, stop the service, delete vectors.sqlite3 and run the rebuild again\n"
        )
        return FAILED
    except OSError as error:
        sys.stderr.write(f"rebuild: STORAGE_DIR cannot be used ({error.strerror}: {error.filename})\n")
        return FAILED
    except KeyboardInterrupt:
        sys.stderr.write("rebuild: interrupted; what was embedded is kept, run it again to go on\n")
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m projections.rebuild",
        description="Build memory's indices with an embedding model and make that the active one.",
        allow_abbrev=False,
    )
    whose = parser.add_mutually_exclusive_group()
    whose.add_argument("--user", metavar="U", help="this user's index only")
    whose.add_argument("--all", action="store_true", help="the indices of all users (the default)")
    parser.add_argument("--model", metavar="M", help="the embedding model (default: EMB_MODEL)")
    parser.add_argument("--base-url", metavar="URL", help="where it is served (default: EMB_BASE_URL)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--verify", action="store_true", help="compare the live indices with the ledger; change nothing")
    what.add_argument("--prune", action="store_true", help="drop generations and vectors that are out of use")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")
    parser.set_defaults(check=parser.error)
    return parser


def _run(settings: ProjectionSettings, given: argparse.Namespace) -> int:
    user_id: str | None = given.user
    if given.verify:
        return _verify(settings, user_id, as_json=given.json)
    if given.prune:
        return _prune(settings, dry_run=given.dry_run, as_json=given.json)
    if given.dry_run:
        return _plan(settings, user_id, as_json=given.json)
    return _rebuild(settings, user_id, as_json=given.json)


def _settings(given: argparse.Namespace) -> ProjectionSettings:
    """Return the settings of the environment, overridden by the arguments."""
    if given.verify and given.dry_run:
        given.check("--dry-run goes with a rebuild or with --prune; --verify changes nothing anyway")
    if given.prune and given.user is not None:
        given.check("--prune is for everybody's indices: leave --user out")
    overrides: dict[str, object] = {}
    if given.model is not None:
        if not given.model.strip():
            raise InvalidInput("--model", given.model, "name the embedding model")
        overrides["emb_model"] = given.model
    if given.base_url is not None:
        try:
            overrides["emb_base_url"] = http_url(given.base_url)
        except ValueError as error:
            raise InvalidInput("--base-url", without_secrets(given.base_url), str(error)) from None
    return load_settings(ProjectionSettings, **overrides)


def _rebuild(settings: ProjectionSettings, user_id: str | None, *, as_json: bool) -> int:
    started = time.monotonic()
    with only_one(settings):
        if migrate(settings.ledger_path):
            log.warning("%s", new_ledger_notice(settings))
        remember_address(settings)
        with _opened(settings) as (ledger, cache):
            user_id = _user_of(ledger, user_id)
            done = asyncio.run(_with_client(ledger, cache, settings, user_id))
    seconds = time.monotonic() - started
    if as_json:
        _print_json(_document(done, seconds))
    else:
        sys.stdout.write(
            f"{done.space.model} is active for {_count(done.users, 'user')}: {done.vectors} vectors, "
            f"{done.embedded} embedded now, the others from the cache ({seconds:.1f} s)\n"
        )
    return DONE


async def _with_client(
    ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, user_id: str | None
) -> Rebuilt:
    client = EmbeddingClient(settings)
    try:
        return await rebuild(ledger, client, cache, settings, user_id=user_id)
    finally:
        await client.close()


def _plan(settings: ProjectionSettings, user_id: str | None, *, as_json: bool) -> int:
    planned = Plan(settings.emb_model, 0, 0, 0, 0, 1, 0, 0)
    if settings.ledger_path.exists():
        with _opened(settings, writes=False) as (ledger, cache):
            user_id = _user_of(ledger, user_id)
            planned = plan(ledger, cache, settings, user_id)
    if as_json:
        _print_json(asdict(planned))
    else:
        sys.stdout.write(
            f"{planned.model}: {planned.events} events, {planned.texts} texts; {planned.to_embed} to embed in about "
            f"{_count(planned.calls, 'call')}, {planned.cached} in the cache already\n"
            f"the vector cache keeps {planned.cache_vectors} vectors, {_megabytes(planned.cache_bytes)}\n"
        )
    return DONE


def _verify(settings: ProjectionSettings, user_id: str | None, *, as_json: bool) -> int:
    differences: list[Difference] = []
    with _opened(settings) as (ledger, cache):
        user_id = _user_of(ledger, user_id)
        for difference in verify_indices(ledger, cache, settings, user_id):
            differences.append(difference)
            if not as_json:
                whose = f"user {difference.user_id!r}" if difference.user_id else "everybody"
                sys.stdout.write(f"{whose}: {difference.kind}: {difference.detail}\n")
    if as_json:
        _print_json({"ok": not differences, "differences": [asdict(difference) for difference in differences]})
    elif not differences:
        sys.stdout.write("the live indices hold what the ledger says\n")
    else:
        sys.stderr.write("a service makes broken files again by itself; for the rest run the rebuild\n")
    return FAILED if differences else DONE


def _prune(settings: ProjectionSettings, *, dry_run: bool, as_json: bool) -> int:
    with only_one(settings), _opened(settings) as (ledger, cache):
        pruned = prune(ledger, cache, settings, dry_run=dry_run)
    if as_json:
        _print_json({"dry_run": dry_run, "freed_bytes": pruned.freed_bytes, **asdict(pruned)})
    else:
        _print_pruned(pruned, dry_run=dry_run)
    return DONE


def _print_pruned(pruned: Pruned, *, dry_run: bool) -> None:
    for folder in pruned.folders:
        sys.stdout.write(f"users/{folder}\n")
    models = f" of {', '.join(sorted(set(pruned.models)))}" if pruned.models else ""
    sys.stdout.write(
        f"{'would drop' if dry_run else 'dropped'} {_count(len(pruned.folders), 'index', 'indices')} "
        f"({_megabytes(pruned.folder_bytes)}), {_count(pruned.vectors, 'vector')}{models} "
        f"({_megabytes(pruned.vector_bytes)}), {_count(pruned.orphans, 'vector')} without a memory "
        f"({_megabytes(pruned.orphan_bytes)}): {pruned.freed_bytes} bytes\n"
    )


@contextmanager
def _opened(settings: ProjectionSettings, *, writes: bool = True) -> Iterator[tuple[Ledger, Any]]:
    """Open the ledger and the vector cache; without ``writes`` the cache is None if it has no file."""
    ledger = Ledger(settings.ledger_path)
    cache: VectorCache | None = None
    try:
        if writes or settings.vector_cache_path.exists():
            cache = VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16")
        yield ledger, cache
    finally:
        if cache is not None:
            cache.close()
        ledger.close()


def _user_of(ledger: Ledger, named: str | None) -> str | None:
    """Return the user whom ``--user`` names; raise :class:`InvalidInput` for one who has no memories."""
    if named is None:
        return None
    user_id = check_id("--user", named, ledger.reader.has_events)
    if not ledger.reader.count_turns(user_id):
        raise InvalidInput("--user", user_id, "name a user who has memories")
    return user_id


def _document(done: Rebuilt, seconds: float) -> dict[str, Any]:
    return {
        "model": done.space.model,
        "dimensions": done.space.dimensions,
        "users": done.users,
        "memories": done.memories,
        "vectors": done.vectors,
        "embedded": done.embedded,
        "ledger_position": done.position,
        "seconds": round(seconds, 3),
    }


def _print_json(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False, indent=2) + "\n")


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

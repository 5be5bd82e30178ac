"""The commands of ``opm``, and how their errors are reported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from domain.console import print_any_text
from domain.errors import InvalidInput, OpmError
from domain.private_files import given_to_owner, private_by_default
from domain.settings import StorageSettings, load_settings
from service.cli.audit_index import audit_index
from service.cli.backtest import backtest
from service.cli.backup import backup
from service.cli.erase import erase, retention
from service.cli.explain import explain
from service.cli.export_import import export, import_
from service.cli.forget import edit, forget, unforget
from service.cli.keys import create, list_, revoke
from service.cli.lists import conversations, memories, users
from service.cli.migrate import migrate
from service.cli.recall import recall
from service.cli.report import report
from service.cli.restore import restore
from service.cli.shell import BAD_ARGUMENTS, FAILED, fail
from service.cli.status import status
from service.cli.verify import verify

app = typer.Typer(
    name="opm",
    help="Query, check, keep and change the memory of OpenPersistentMemory. STORAGE_DIR says where it is.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"opm {version('openpersistentmemory')}")
        raise typer.Exit


@app.callback()
def _opm(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and stop.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options before a command."""


@dataclass(frozen=True, slots=True)
class _Command:
    name: str
    function: Callable[..., None]
    in_short: str
    """Shown in the list of commands: about 60 characters at most, or it is cut off at 80 columns."""
    example: str


_COMMANDS = (
    # Query.
    _Command("recall", recall, "Show which memories a question finds, now or then.", 'opm recall -u ann "my cat"'),
    _Command("explain", explain, "Show how one answer came about.", "opm explain --last -u ann"),
    _Command(
        "backtest",
        backtest,
        "Replay past questions with other settings.",
        "opm backtest -u ann --since 2026-01-01 --gate off",
    ),
    _Command("status", status, "Show what is kept, where, and the last backup.", "opm status --json"),
    _Command("users", users, "List who has memories.", "opm users -n 10"),
    _Command("conversations", conversations, "List a user's conversations.", "opm conversations -u ann"),
    _Command("memories", memories, "List a user's memories and their ids.", 'opm memories -u ann -q "cat"'),
    _Command(
        "audit-index", audit_index, "Prepare the auditor's questions about all decisions.", "opm audit-index --json"
    ),
    _Command("report", report, "Write one person's audit.", "opm report -u ann --since 2026-01-01 --html -o ann.html"),
    # Change.
    _Command("edit", edit, "Correct the summary of a memory.", 'opm edit MEMORY_ID --summary "Ann lives in Vienna."'),
    _Command("forget", forget, "Forget a memory.", 'opm forget MEMORY_ID --reason "no longer true"'),
    _Command("unforget", unforget, "Take back that a memory was forgotten.", "opm unforget MEMORY_ID"),
    _Command("erase", erase, "Erase a user, a memory or a conversation.", "opm erase -u ann --dry-run"),
    _Command("retention", retention, "Erase what is older than RETENTION_DAYS.", "opm retention --dry-run"),
    # Let in.
    _Command("keys create", create, "Make a key for a person or a program.", "opm keys create -u ann --name laptop"),
    _Command("keys list", list_, "List the keys that were made.", "opm keys list --json"),
    _Command("keys revoke", revoke, "Revoke a key.", "opm keys revoke KEY_ID"),
    # Import and export.
    _Command("import", import_, "Import conversations from elsewhere.", "opm import conversations.json -u ann"),
    _Command("export", export, "Write everything stored about a user as JSONL.", "opm export -u ann -o ann.jsonl"),
    # Keep.
    _Command("verify", verify, "Check that everything is as it was written.", "opm verify --since POSITION:HASH"),
    _Command("migrate", migrate, "Bring a ledger of an older version up to date.", "opm migrate --json"),
    _Command("backup", backup, "Copy the ledger; the service may be running.", "opm backup ledger-copy.sqlite3"),
    _Command("restore", restore, "Replace the ledger with a backup.", "opm restore ledger-copy.sqlite3"),
)
_keys = typer.Typer(no_args_is_help=True)
app.add_typer(_keys, name="keys", help="Make, list and revoke the keys with which the service is called.")
for _command in _COMMANDS:
    _, _, _own_name = _command.name.rpartition(" ")
    _group = app if _own_name == _command.name else _keys
    _group.command(_own_name, short_help=_command.in_short, epilog=f"Example: {_command.example}")(_command.function)


def main() -> None:
    """Run ``opm`` and exit: 0 success, 1 something differs or failed, 2 bad arguments or settings."""
    print_any_text()
    private_by_default()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        # Not standalone, so that a bad argument raises and is reported in one line like any other error.
        with given_to_owner(_storage_dir()):
            ended = app(prog_name="opm", standalone_mode=False)
    except TyperException as error:
        _fail_for_arguments(error)
    except typer.Abort:
        fail("stopped", FAILED)
    except InvalidInput as error:
        fail(str(error), BAD_ARGUMENTS)
    except OpmError as error:
        fail(str(error), FAILED)
    except KeyboardInterrupt:
        fail("interrupted", FAILED)
    sys.exit(ended)


def _storage_dir() -> Path | None:
    """Return ``STORAGE_DIR``; None where a setting is wrong, which the command itself will say."""
    try:
        return load_settings(StorageSettings).storage_dir
    except OpmError:
        return None


def _fail_for_arguments(error: TyperException) -> NoReturn:
    """Report bad arguments in one line; without any arguments, print the help."""
    context = getattr(error, "ctx", None)
    if not sys.argv[1:]:
        typer.echo(str(context.get_help() if context is not None else error), err=True)
        sys.exit(BAD_ARGUMENTS)
    said = " ".join(error.format_message().split())
    where = context.command_path if context is not None else "opm"
    fail(f"{said.rstrip('.')} (see `{where} --help`)", BAD_ARGUMENTS)

"""The commands of ``opm``, and what becomes of an error that one of them raises."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from domain.errors import InvalidInput, OpmError
from service.cli.backtest import backtest
from service.cli.backup import backup
from service.cli.erase import erase
from service.cli.explain import explain
from service.cli.forget import edit, forget
from service.cli.recall import recall
from service.cli.restore import restore
from service.cli.shell import BAD_ARGUMENTS, FAILED, complain
from service.cli.take_along import export, import_
from service.cli.verify import verify

app = typer.Typer(
    name="opm",
    help="Ask, check, keep and change the memory of OpenPersistentMemory. STORAGE_DIR says where it lies.",
    no_args_is_help=True,
    add_completion=False,
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
    """Options that stand before a command."""


app.command("explain")(explain)
app.command("recall")(recall)
app.command("backtest")(backtest)
app.command("verify")(verify)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("forget")(forget)
app.command("edit")(edit)
app.command("erase")(erase)
app.command("export")(export)
app.command("import")(import_)


def main() -> None:
    """Run ``opm`` and end the process: 0 done, 1 something differs or failed, 2 bad arguments or settings."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        app()
    except InvalidInput as error:
        complain(str(error))
        sys.exit(BAD_ARGUMENTS)
    except OpmError as error:
        complain(str(error))
        sys.exit(FAILED)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(FAILED)

"""The domain's settings, and the function that loads settings for every layer.

Each layer declares what it needs, and the layer above extends it. Values come from the environment, then from a
``.env`` file in the working directory. An empty value counts as not set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSource

from domain.errors import SettingsError, shown

_SECRET_WORDS = frozenset({"KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD"})


class StorageSettings(BaseSettings):
    """Where the ledger is."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    storage_dir: Path = Field(default=Path("storage"), description="folder of the ledger and its projections")

    @property
    def ledger_path(self) -> Path:
        return self.storage_dir / "ledger.sqlite3"

    @property
    def users_dir(self) -> Path:
        return self.storage_dir / "users"


def new_ledger_notice(settings: StorageSettings) -> str:
    """Say that a ledger was made where there was none: a wrong folder would else go unnoticed."""
    return (
        f"a new, empty ledger was made at {settings.ledger_path.absolute()} (STORAGE_DIR = "
        f"{str(settings.storage_dir)!r}); if there is one already, set STORAGE_DIR to its folder"
    )


S = TypeVar("S", bound=BaseSettings)


def load_settings(kind: type[S], **overrides: object) -> S:
    """Read ``kind`` from the environment; raise :class:`SettingsError`, one line that names every bad variable."""
    try:
        return kind(**overrides)  # type: ignore[arg-type]  # pydantic checks what is given
    except UnreadableSource as error:
        # A variable that should hold JSON does not; the library's message names the field without its value.
        named = re.search(r'field "(\w+)"', str(error))
        name = named.group(1).upper() if named else "a setting"
        raise SettingsError(f'{name}: give a JSON object, as in {name}=\'{{"name": "value"}}\'') from None
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(kind, dict(item)) for item in error.errors())) from None


def _complaint(kind: type[BaseSettings], item: dict[str, object]) -> str:
    where = item["loc"]
    field = str(where[0]) if isinstance(where, tuple) and where else "settings"
    name = field.upper()
    known = kind.model_fields.get(field)
    hint = f" ({known.description})" if known is not None and known.description else ""
    if item["type"] == "missing":
        return f"{name} is not set{hint}: set it in the environment or in .env"
    value = "(hidden)" if _SECRET_WORDS & set(name.split("_")) else shown(item.get("input"))
    said = str(item["msg"]).removeprefix("Value error, ")
    return f"{name} = {value}{hint}: {said}"

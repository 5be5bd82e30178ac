"""The domain's settings, and the function that loads settings for every layer.

Each layer declares what it needs, and the layer above extends it. Values come from the environment, then from a
``.env`` file in the working directory. An empty value counts as not set.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSource

from domain.errors import InvalidInput, SettingsError, shown
from domain.identity import check_id
from domain.temporal.zones import zone_named

_SECRET_WORDS = frozenset({"KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD"})


class StorageSettings(BaseSettings):
    """Where the ledger is, and whose days count where a request does not say."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    storage_dir: Path = Field(default=Path("storage"), description="folder of the ledger and its projections")

    timezone: str = Field(default="UTC", description="time zone of a person whose request names none")
    user_timezones: dict[str, str] = Field(
        default={}, description="JSON object from user id to time zone, for people elsewhere than TIMEZONE"
    )

    @field_validator("timezone")
    @classmethod
    def _zone_is_known(cls, name: str) -> str:
        return str(zone_named(name))

    @field_validator("user_timezones")
    @classmethod
    def _users_and_zones_are_known(cls, zones: dict[str, str]) -> dict[str, str]:
        known = {}
        for user, name in zones.items():
            try:
                known[check_id("user", user)] = str(zone_named(name))
            except InvalidInput as error:
                raise ValueError(str(error)) from None
            except ValueError as error:
                raise ValueError(f"{shown(name)}: {error}") from None
        return known

    def timezone_of(self, user_id: str) -> str:
        """Return the name of a person's time zone, as far as the operator knows it."""
        return self.user_timezones.get(user_id, self.timezone)

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

"""The domain's settings, and how every layer's are read: as a person means what they wrote.

Each layer declares what it needs, and the layer above extends it. Values come from the environment, then from a
``.env`` file in the working directory. Blanks and a pair of quotes around a value do not belong to it (Docker passes on
the quotes of an ``--env-file``), and an empty value counts as not set.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_origin

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from domain.errors import InvalidInput, SettingsError, shown
from domain.identity import check_id
from domain.temporal.zones import zone_named

ENV_FILE = ".env"

_SECRET_WORDS = frozenset({"KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD"})
_CREDENTIALS = re.compile(r"(?:(?<=://)|^(?!\w+://)).*[@\uff20\ufe6b]|\?.*", re.DOTALL)
"""What stands before the ``@`` of an address, as any keyboard writes it, or in its query."""
_AFTER_ADDRESS = re.compile(r"#.*|(?<=[\w.-]):(?!//|\d*(?:[/\u2026]|$))[^/]*", re.DOTALL)
"""What stands behind a ``#``, or where a port should and is none: a password may have come there."""
_QUOTES = {'"': '"', "'": "'", "`": "`", "\u201c": "\u201d", "\u2018": "\u2019", "\u201e": "\u201c"}
_STRAIGHT = str.maketrans("\u201c\u201d\u201e\u2018\u2019", '"""\'\'')
_CURLY = frozenset("\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f")
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060"
_LATIN_1_MAX = 0xFF
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def as_meant(value: str) -> str:
    """Return a value without the blanks and quotes around it."""
    text = _trimmed(value)
    while _quoted(text):
        text = _trimmed(text[1:-1])
    return text


def without_secrets(address: str) -> str:
    """Return an address, however malformed, as it may be shown: without all that may be a password or a key."""
    return _AFTER_ADDRESS.sub("\u2026", _CREDENTIALS.sub("\u2026", address))


def _trimmed(text: str) -> str:
    return text.strip().strip(_INVISIBLE).strip()


def _quoted(text: str) -> bool:
    if len(text) < 2 or _QUOTES.get(text[0]) != text[-1]:
        return False
    inner = text[1:-1].strip()
    # A quote in between means that these two are no pair, as in "a","b"; but JSON is full of them.
    return not {text[0], text[-1]} & set(inner) or (inner[0], inner[-1]) in {("{", "}"), ("[", "]")}


def _decoded(text: str) -> object:
    """Read JSON, also with the curly quotes of a word processor; return a text that is none as it is."""
    for written in (text, text.translate(_STRAIGHT)):
        try:
            return json.loads(written)
        except (ValueError, RecursionError):
            continue
    return text


def _folder(value: object) -> object:
    """Read ``~`` and ``$HOME`` in a path as a shell would."""
    if not isinstance(value, str):
        return value
    try:
        path = Path(os.path.expandvars(value)).expanduser()
    except RuntimeError:
        raise ValueError("there is no such home folder: give the whole path") from None
    if path != Path(value) and Path(value).exists():
        # Earlier versions took the name as it stands. Their ledger must not seem to be lost.
        raise ValueError(f"this means {path}, but a folder of that very name is here too: move it there, or rename it")
    return path


def _key(value: object) -> object:
    """Read an API key, or raise ValueError that says what is wrong with it and not what it is."""
    if not isinstance(value, str):
        return value
    key = as_meant(value)
    if key[:7].lower() == "bearer ":
        key = key[7:].lstrip()
    if not key:
        raise ValueError("a key is empty: leave it out, or set one")
    for place, char in enumerate(key, start=1):
        if (kind := _unsendable(char)) is not None:
            raise ValueError(f"character {place} of a key is {kind}, which cannot be sent: copy the key again")
    return key


def _unsendable(char: str) -> str | None:
    """Name the kind of a character that no HTTP header can hold; None for any other."""
    if char in "\r\n\v\f\x85\u2028\u2029":
        return "a line break"
    if char in _CURLY:
        return "a curly quote"
    if unicodedata.category(char) == "Pd" and char != "-":
        return "a long dash"
    if not char.isprintable():
        return f"an invisible character (U+{ord(char):04X})"
    return "no Latin letter, digit or sign" if ord(char) > _LATIN_1_MAX else None


Folder = Annotated[Path, BeforeValidator(_folder)]
ApiKey = Annotated[SecretStr, BeforeValidator(_key)]


class EnvironmentSettings(BaseSettings):
    """What all settings have in common: where they come from, and how a value is read.

    ``verbatim`` names the fields whose blanks count.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        enable_decoding=False,
        extra="ignore",
        frozen=True,
    )
    verbatim: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _read_as_meant(cls, given: dict[str, Any]) -> dict[str, Any]:
        read = {}
        for name, value in given.items():
            if not isinstance(value, str):
                read[name] = value
            elif name in cls.verbatim:
                read[name] = _trimmed(value)[1:-1] if _quoted(_trimmed(value)) else value
            elif meant := as_meant(value):
                field = cls.model_fields.get(name)
                is_object = field is not None and get_origin(field.annotation) is dict
                read[name] = _decoded(meant) if is_object else meant
        return read


class StorageSettings(EnvironmentSettings):
    """Where the ledger is, and whose days count where a request does not say."""

    storage_dir: Folder = Field(default=Path("storage"), description="folder of the ledger and its projections")

    timezone: str = Field(default="UTC", description="time zone of a person whose request names none")
    user_timezones: dict[str, str] = Field(
        default={}, description="JSON object from user id to time zone, for people elsewhere than TIMEZONE"
    )

    retention_days: int = Field(default=0, ge=0, le=36_500, description="erase turns older than so many days, 0 = keep")

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
    encoding = env_file_encoding()
    try:
        return kind(_env_file_encoding=encoding, **overrides)  # type: ignore[arg-type]  # pydantic checks what is given
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(kind, dict(item)) for item in error.errors())) from None


def env_file_encoding() -> str:
    """Return how the ``.env`` file is encoded: UTF-8, or UTF-16 as Windows' PowerShell writes it.

    Raises :class:`SettingsError` where it cannot be read.
    """
    path = Path(ENV_FILE)
    if not path.is_file():
        return "utf-8"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{ENV_FILE} cannot be read ({error.strerror}): let this user read it") from None
    encoding = next((encoding for bom, encoding in _BOMS if raw.startswith(bom)), "utf-8")
    if encoding == "utf-8" and b"\0" in raw[:2]:
        encoding = "utf-16-be" if raw.startswith(b"\0") else "utf-16-le"
    try:
        raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError(f"{ENV_FILE} is not text in UTF-8 (line {line}): save it again as UTF-8") from None
    return encoding


def _complaint(kind: type[BaseSettings], item: dict[str, object]) -> str:
    where = item["loc"]
    field = str(where[0]) if isinstance(where, tuple) and where else "settings"
    name = field.upper()
    known = kind.model_fields.get(field)
    hint = f" ({known.description})" if known is not None and known.description else ""
    if item["type"] == "missing":
        return f"{name} is not set{hint}: set it in the environment or in {ENV_FILE}"
    value = item.get("input")
    if isinstance(value, str):
        value = without_secrets(value) if name.endswith("_URL") else _CREDENTIALS.sub("\u2026", value)
    # What should be JSON and is not may hold a key anywhere.
    hidden = bool(_SECRET_WORDS & set(name.split("_"))) or (isinstance(value, str) and value.startswith("{"))
    said = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "dict_type":
        said = f'give a JSON object, as in {name}=\'{{"name": "value"}}\''
    return f"{name} = {'(hidden)' if hidden else shown(value)}{hint}: {said}"

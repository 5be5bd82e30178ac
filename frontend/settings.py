"""The settings of the page, from the environment or a `.env` file: the service's address and key.

The address is not a field on the page: a visitor must not be able to send the server's requests and its key to a host
of their choice.
"""

from __future__ import annotations

import codecs
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ENV_FILE = ".env"
DEFAULT_BACKEND_URL = "http://127.0.0.1:9000"


class SettingsError(ValueError):
    """A setting is malformed; the message names it and gives a valid example."""


class FrontendSettings(BaseSettings):
    """`BACKEND_URL` (stored without a trailing `/v1`) and `BACKEND_API_KEY`."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    backend_url: str = Field(default=DEFAULT_BACKEND_URL)
    backend_api_key: SecretStr | None = None

    @field_validator("backend_url", "backend_api_key", mode="before")
    @classmethod
    def _without_quotes(cls, value: object) -> object:
        return value.strip().strip("\"'").strip() if isinstance(value, str) else value

    @field_validator("backend_api_key")
    @classmethod
    def _can_be_sent(cls, key: SecretStr | None) -> SecretStr | None:
        text = key.get_secret_value() if key is not None else ""
        if not (text.isascii() and (text.isprintable() or not text)):
            raise ValueError("not printable ASCII")
        return key if text else None

    @field_validator("backend_url")
    @classmethod
    def _root_of_the_service(cls, value: str) -> str:
        url = value.strip().rstrip("/").removesuffix("/v1").rstrip("/")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("not an http address")
        _ = parts.port  # urlsplit checks the port only when it is read
        return url

    @property
    def address(self) -> str:
        """The backend's address to show, without a user name or password."""
        parts = urlsplit(self.backend_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def is_loopback(self) -> bool:
        """Whether the backend is on this machine, where no proxy of the environment can reach it."""
        return urlsplit(self.backend_url).hostname in ("127.0.0.1", "localhost", "::1")


def load_settings() -> FrontendSettings:
    """Read the settings; raises `SettingsError` with one line to act on."""
    try:
        # The library's own argument, which its types do not show.
        return FrontendSettings(_env_file_encoding=_encoding(Path(ENV_FILE)))  # type: ignore[call-arg]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{ENV_FILE} cannot be read ({type(error).__name__}): save it as UTF-8") from None
    except ValidationError as error:
        names = [str(part).upper() for problem in error.errors() for part in problem["loc"]]
        if "BACKEND_URL" in names:
            fix = f"give an http address such as BACKEND_URL={DEFAULT_BACKEND_URL}"
        else:
            fix = "copy the key again, without curly quotes and line breaks"
        raise SettingsError(f"{', '.join(names)} is malformed: {fix}") from None


def _encoding(env_file: Path) -> str:
    """UTF-8, or UTF-16 as Windows' PowerShell writes it; the service reads the same file in the same way."""
    if not env_file.is_file():
        return "utf-8"
    with env_file.open("rb") as file:
        beginning = file.read(2)
    if beginning in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if b"\0" in beginning:
        return "utf-16-be" if beginning.startswith(b"\0") else "utf-16-le"
    return "utf-8-sig"

"""The settings of the page, from the environment or a `.env` file: the service's address and key.

The address is not a field on the page: a visitor must not be able to send the server's requests and its key to a host
of their choice.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

DEFAULT_BACKEND_URL = "http://127.0.0.1:9000"


class SettingsError(ValueError):
    """A setting is malformed; the message names it and gives a valid example."""


class FrontendSettings(BaseSettings):
    """`BACKEND_URL` (stored without a trailing `/v1`) and `BACKEND_API_KEY`."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", env_ignore_empty=True, extra="ignore", frozen=True
    )

    backend_url: str = Field(default=DEFAULT_BACKEND_URL)
    backend_api_key: SecretStr | None = None

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
        return FrontendSettings()
    except ValidationError as error:
        names = ", ".join(str(part).upper() for problem in error.errors() for part in problem["loc"])
        raise SettingsError(
            f"{names} is malformed: give an http address such as BACKEND_URL={DEFAULT_BACKEND_URL}"
        ) from None

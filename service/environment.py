"""Settings out of the environment and `.env`, with a message to act on where a value cannot be used."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings

_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")

Settings = TypeVar("Settings", bound=BaseSettings)


class BadSetting(Exception):
    """A variable cannot be used as it is; one line for each."""


def read_environment(settings: type[Settings]) -> Settings:
    """Raises BadSetting with the variable, its value (unless it may be secret) and what is wanted."""
    try:
        return settings()
    except ValidationError as error:
        raise BadSetting(
            "\n".join(_line(problem["loc"], problem["input"], problem["msg"]) for problem in error.errors())
        ) from None


def _line(location: tuple[int | str, ...], value: object, message: str) -> str:
    variable = ".".join(map(str, location)).upper()
    shown = "" if any(word in variable for word in _SECRET) else f"={str(value)[:200]!r}"
    return f"{variable}{shown}: {message}."

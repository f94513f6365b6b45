"""What every resource of the wire shares: strict request models, the list envelope, times as whole unix seconds."""

from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

#: Largest page of any list.
N_PAGE: Final = 10_000


class WireRequest(BaseModel):
    """A request body: unknown fields are refused by name, and nothing is coerced from another JSON type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WireQuery(BaseModel):
    """A request's query: unknown parameters are refused by name; `api-version`, which some clients append, says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    api_version: str | None = Field(default=None, alias="api-version", exclude=True)


class Page(WireQuery):
    """Which part of a list: up to `limit` objects that come after the object `after`."""

    after: str | None = None
    limit: int = Field(default=20, ge=1, le=N_PAGE)


def storable(text: str) -> str:
    """Return the text, or refuse what a database or UTF-8 cannot hold."""
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("value", "must be Unicode text without the character NUL")
    return text


#: A string that every database can hold.
Text = Annotated[str, AfterValidator(storable)]

#: Longest value that an error message repeats.
N_SHOWN: Final = 100


def shown(value: object) -> str:
    """Return a value as an error message shows it, cut when it is long."""
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    return text if len(text) <= N_SHOWN else f"{text[:N_SHOWN]}…"


def unix(time: float | None) -> int | None:
    """Return a time as the wire has it: whole unix seconds, or null."""
    return None if time is None else int(time)


def page(data: Sequence[dict[str, Any]], *, has_more: bool, ends: bool = False) -> dict[str, Any]:
    """Return the list envelope; with `ends` it carries `first_id` and `last_id`."""
    envelope: dict[str, Any] = {"object": "list", "data": list(data)}
    if ends:
        envelope["first_id"] = data[0]["id"] if data else None
        envelope["last_id"] = data[-1]["id"] if data else None
    return {**envelope, "has_more": has_more}

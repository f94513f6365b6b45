"""What every resource of the wire shares: strict request models, the list envelope, times as whole unix seconds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError
from starlette.responses import Response

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


#: How deep a JSON value that is kept may lie in others.
N_DEPTH: Final = 100


def storable_json(value: object) -> None:
    """Refuse a JSON value that holds text which is not `storable`, or is nested too deep to be read again."""
    level, depth = [value], 0
    while level:
        if depth > N_DEPTH:
            raise PydanticCustomError("value", "must be nested at most {limit} levels deep", {"limit": N_DEPTH})
        for text in (text for each in level for text in _texts(each)):
            storable(text)
        level, depth = [inner for each in level for inner in _inside(each)], depth + 1


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    return (value,) if isinstance(value, str) else ()


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def ascii_json(body: Mapping[str, Any]) -> Response:
    """Return a body in ASCII: what models and graders say may hold characters that UTF-8 cannot."""
    return Response(json.dumps(body, allow_nan=False), media_type="application/json")


#: A string that every database can hold.
Text = Annotated[str, AfterValidator(storable)]

#: Longest value that an error message repeats.
N_SHOWN: Final = 100


def shown(value: object) -> str:
    """Return a value as an error message shows it, cut when it is long."""
    text = f"'{value}'" if isinstance(value, str) else repr(value)
    return text if len(text) <= N_SHOWN else f"{text[:N_SHOWN]}…"


#: How many pairs an object's metadata has at most, and how many characters their keys and values.
N_METADATA: Final = 16
N_METADATA_KEY: Final = 64
N_METADATA_VALUE: Final = 512


def _metadata_fits(metadata: dict[str, str]) -> dict[str, str]:
    if len(metadata) > N_METADATA:
        raise PydanticCustomError(
            "value", "holds at most {limit} pairs (got {n})", {"limit": N_METADATA, "n": len(metadata)}
        )
    for key, value in metadata.items():
        if len(key) > N_METADATA_KEY or len(value) > N_METADATA_VALUE:
            raise PydanticCustomError(
                "value",
                "has keys of at most {limit} characters and values of at most {value_limit}; "
                "{key} has {n} and its value {m}",
                {
                    "limit": N_METADATA_KEY,
                    "value_limit": N_METADATA_VALUE,
                    "key": shown(key),
                    "n": len(key),
                    "m": len(value),
                },
            )
    return metadata


#: Pairs that a client attaches to an object.
Metadata = Annotated[dict[Text, Text], AfterValidator(_metadata_fits)]


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

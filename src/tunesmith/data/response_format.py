"""The form of answers that a `response_format` asks for, in either of the two ways in which it is written."""

from collections.abc import Mapping
from typing import Any, cast


def schema_of(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the JSON schema that answers are to keep to; None where they are free text.

    `json_schema` is written with its name and schema in a block of that name (OpenAI), or beside the type (Azure).
    """
    if response_format is None or response_format["type"] == "text":
        return None
    if response_format["type"] == "json_object":
        return {"type": "object"}
    block = cast("Mapping[str, Any]", response_format.get("json_schema") or response_format)
    return cast("Mapping[str, Any]", block.get("schema") or {})

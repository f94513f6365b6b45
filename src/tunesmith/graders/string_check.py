"""`string_check`: compare two rendered strings."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from tunesmith.graders.base import GraderSchema, Template


def _as_enum(operation: object) -> object:
    """Take `neq`, which the guides write, as the schema's `ne`."""
    return "ne" if operation == "neq" else operation


class StringCheck(GraderSchema):
    """Compare two rendered strings; `like` and `ilike` ask whether `input` contains `reference`."""

    type: Literal["string_check"]
    name: str | None = None
    input: Template
    reference: Template
    operation: Annotated[Literal["eq", "ne", "like", "ilike"], BeforeValidator(_as_enum)]

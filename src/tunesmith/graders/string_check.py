"""`string_check`: compare two rendered strings."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator

from tunesmith.graders.base import Grade, GraderBase, Sample, Tools
from tunesmith.graders.template import Template, render


def _as_enum(operation: object) -> object:
    """Take `neq`, which the guides write, as the schema's `ne`."""
    return "ne" if operation == "neq" else operation


class StringCheck(GraderBase):
    """Compare two rendered strings, as they are; `like` and `ilike` ask whether `input` contains `reference`."""

    type: Literal["string_check"]
    input: Template
    reference: Template
    operation: Annotated[Literal["eq", "ne", "like", "ilike"], BeforeValidator(_as_enum)]

    def templates(self) -> Mapping[str, str]:
        """Return both texts."""
        return {"input": self.input, "reference": self.reference}

    async def score(self, sample: Sample, _tools: Tools, /) -> Grade:
        """Return 1 or 0."""
        text, reference = render(self.input, sample), render(self.reference, sample)
        match self.operation:
            case "eq":
                holds = text == reference
            case "ne":
                holds = text != reference
            case "like":
                holds = reference in text
            case "ilike":
                holds = reference.casefold() in text.casefold()
        return Grade(float(holds))

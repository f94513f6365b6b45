"""What all graders share: strict schemas and templates. A grader is one file beside this one; `grader.py` lists them."""

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

#: The image that Python graders name when they name one.
IMAGE_TAG: Final = "2025-05-08"


class GraderSchema(BaseModel):
    """A grader as the wire writes it: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("value", "must not contain the character NUL")
    return text


#: Text that may hold `{{ item.… }}` and `{{ sample.… }}`.
Template = Annotated[str, AfterValidator(_without_nul)]

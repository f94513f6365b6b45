"""`python`: a function of the user's that scores a sample."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import GraderSchema

N_MAX_SOURCE_BYTES: Final = 256 * 1024


def _short(source: str) -> str:
    n_bytes = len(source.encode("utf-8", "surrogatepass"))
    if n_bytes >= N_MAX_SOURCE_BYTES:
        raise PydanticCustomError("value", "must be shorter than {limit} bytes", {"limit": N_MAX_SOURCE_BYTES})
    return source


class PythonGrader(GraderSchema):
    """Call `grade(sample, item)` of the source, which returns a number."""

    type: Literal["python"]
    name: str | None = None
    source: Annotated[str, AfterValidator(_short)]
    image_tag: str | None = None

"""`python`: a function of the user's that scores a sample."""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import Grade, GraderBase, Sample, Tools

N_MAX_SOURCE_BYTES: Final = 256 * 1024


def _short(source: str) -> str:
    n_bytes = len(source.encode("utf-8", "surrogatepass"))
    if n_bytes >= N_MAX_SOURCE_BYTES:
        raise PydanticCustomError("value", "must be shorter than {limit} bytes", {"limit": N_MAX_SOURCE_BYTES})
    return source


class PythonGrader(GraderBase):
    """Call `grade(sample, item)` of the source, which returns a number."""

    type: Literal["python"]
    source: Annotated[str, AfterValidator(_short)]
    image_tag: str | None = None

    async def check(self, tools: Tools, /) -> None:
        """Load the source in the sandbox, without a call."""
        await tools.python.check(self.source, self.image_tag)

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Return what the source returns."""
        return Grade(await tools.python.grade(self.source, sample))

"""`score_model`: a judge model gives a number."""

from typing import Literal

from pydantic import Field

from tunesmith.graders.base import GraderSchema
from tunesmith.graders.judge import JudgeMessage, SamplingParams


class ScoreModel(GraderSchema):
    """Ask a judge for a number within `range`, 0 to 1 unless said otherwise."""

    type: Literal["score_model"]
    name: str | None = None
    model: str
    input: list[JudgeMessage] = Field(min_length=1)
    range: list[float] | None = Field(default=None, min_length=2, max_length=2)
    sampling_params: SamplingParams | None = None
    #: Belongs to evals; tolerated, because the guides write it.
    pass_threshold: float | None = None

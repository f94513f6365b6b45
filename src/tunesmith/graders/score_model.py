"""`score_model`: a judge model gives a number."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import Grade, GraderBase, GradingFailed, Sample, Tools
from tunesmith.graders.judge import JudgeMessage, SamplingParams, ask, needs, shown, templates


def _ascends(span: list[float]) -> list[float]:
    low, high = span
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise PydanticCustomError("value", "must be [least, greatest], not [{low}, {high}]", {"low": low, "high": high})
    return span


def _endless(number: float) -> bool:
    """Say whether a number is none that can be cut to a range; an integer always can, however long it is."""
    return isinstance(number, float) and not math.isfinite(number)


class ScoreModel(GraderBase):
    """Ask a judge for a number, and keep it within `range`, 0 to 1 unless said otherwise."""

    type: Literal["score_model"]
    model: str
    input: list[JudgeMessage] = Field(min_length=1)
    range: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ascends)] | None = None
    sampling_params: SamplingParams | None = None
    #: Belongs to evals; tolerated, because the guides write it.
    pass_threshold: float | None = None

    def templates(self) -> Mapping[str, str]:
        """Return the texts of the judge's prompt."""
        return templates(self.input)

    async def check(self, tools: Tools, /) -> None:
        """See to it that the judge is there, and can do what it is asked."""
        effort = None if self.sampling_params is None else self.sampling_params.reasoning_effort
        await tools.judge.check(self.model, needs(self.input, effort))

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Return the judge's number."""
        number = {"type": "number"}
        result, verdict = await ask(tools, self.model, self.input, sample, result=number, params=self.sampling_params)
        if isinstance(result, bool) or not isinstance(result, int | float) or _endless(result):
            raise GradingFailed("model_grader_parse_error", f"{self.model} gave no number: {shown(result)}", verdict)
        low, high = self.range or (0.0, 1.0)
        return Grade(float(min(high, max(low, result))), usage={verdict.model: verdict.usage}, model=verdict.model)

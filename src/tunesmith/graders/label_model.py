"""`label_model`: a judge model chooses a label."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import Grade, GraderBase, GradingFailed, Sample, Tools
from tunesmith.graders.judge import JudgeMessage, ask, needs, shown, templates


class LabelModel(GraderBase):
    """Ask a judge for one of `labels`; those in `passing_labels` score 1, the others 0."""

    type: Literal["label_model"]
    model: str
    input: list[JudgeMessage] = Field(min_length=1)
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str]

    @field_validator("passing_labels")
    @classmethod
    def _labels_are_known(cls, passing: list[str], info: ValidationInfo) -> list[str]:
        labels: list[str] = info.data.get("labels", passing)  # what is wrong with those themselves is told first
        for label in passing:
            if label not in labels:
                raise PydanticCustomError("value", "holds '{label}', which is not among the labels", {"label": label})
        return passing

    def templates(self) -> Mapping[str, str]:
        """Return the texts of the judge's prompt."""
        return templates(self.input)

    async def check(self, tools: Tools, /) -> None:
        """See to it that the judge is there, and can do what it is asked."""
        await tools.judge.check(self.model, needs(self.input))

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Return 1 for a label that passes."""
        label = {"type": "string", "enum": list(dict.fromkeys(self.labels))}
        result, verdict = await ask(tools, self.model, self.input, sample, result=label)
        if result not in self.labels:
            details = f"{self.model} gave none of the labels: {shown(result)}"
            raise GradingFailed("model_grader_parse_error", details, verdict)
        passed = result in self.passing_labels
        return Grade(float(passed), usage={verdict.model: verdict.usage}, model=verdict.model)

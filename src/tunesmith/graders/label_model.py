"""`label_model`: a judge model chooses a label."""

from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import GraderSchema
from tunesmith.graders.judge import JudgeMessage


class LabelModel(GraderSchema):
    """Ask a judge for one of `labels`; those in `passing_labels` score 1."""

    type: Literal["label_model"]
    name: str | None = None
    model: str
    input: list[JudgeMessage] = Field(min_length=1)
    labels: list[str] = Field(min_length=1)
    passing_labels: list[str]

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown:
            raise PydanticCustomError("value", "passes '{label}', which is not among its labels", {"label": unknown[0]})
        return self

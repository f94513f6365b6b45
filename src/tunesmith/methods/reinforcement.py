# pyright: basic
"""Reinforcement: answers are sampled and graded, and those that are graded better than their group become likelier."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.data.prompts import PromptForm, PromptRow
from tunesmith.data.rows import Form
from tunesmith.methods.base import Auto, LossSum, Scored
from tunesmith.methods.supervised import SupervisedHyperparameters

if TYPE_CHECKING:
    from tunesmith.data.render import Example, Renderer

AtLeastOne = Annotated[int, Field(ge=1)]
ComputeMultiplier = Annotated[float, Field(gt=1e-5, le=10)]
Effort = Literal["default", "none", "minimal", "low", "medium", "high", "xhigh", "max"]


class ReinforcementHyperparameters(SupervisedHyperparameters):
    """The knobs of a reinforcement job as the wire has them; what is left out is `auto`."""

    compute_multiplier: Auto | ComputeMultiplier = "auto"
    """Factor on the samples that are drawn for each prompt."""
    eval_interval: Auto | AtLeastOne = "auto"
    """Steps between two evaluations on the validation file."""
    eval_samples: Auto | AtLeastOne = "auto"
    """Samples for each row of the validation file in an evaluation."""
    reasoning_effort: Effort = "default"
    """How much the model thinks before it answers; `default` leaves it to the base."""


class ReinforcementConfig(BaseModel):
    """The `reinforcement` block of a job's `method`."""

    model_config = ConfigDict(extra="forbid")

    #: As `graders/grader.py` reads it.
    grader: dict[str, Any]
    hyperparameters: ReinforcementHyperparameters = ReinforcementHyperparameters()
    response_format: dict[str, Any] | None = None


class Reinforcement:
    """The method `reinforcement`."""

    name: ClassVar[str] = "reinforcement"
    form: ClassVar[Form[PromptRow]] = PromptForm()

    def groups(self, row: PromptRow, renderer: "Renderer", *, max_tokens: int) -> "list[tuple[Example, ...]]":  # noqa: ARG002
        """Return nothing: what is trained is sampled."""
        return []

    def prompt(self, row: PromptRow, renderer: "Renderer", thinking: bool | None) -> list[int]:
        """Return the tokens that samples go on from."""
        return renderer.prompt(row.messages, row.tools, parallel_tool_calls=row.parallel_tool_calls, thinking=thinking)

    def loss(self, scored: Scored) -> LossSum:
        """Return the loss of scored samples as a sum and a count."""
        raise NotImplementedError


def thinking(effort: str) -> bool | None:
    """Return whether the base is to think before it answers; None leaves its template's own setting."""
    if effort == "default":
        return None
    return effort not in ("none", "minimal")

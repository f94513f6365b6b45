# pyright: basic
"""Direct preference optimisation: of two answers to the same input, the preferred one is to become the likelier."""

from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.core.chat import Message
from tunesmith.data.pairs import Pair, PairForm
from tunesmith.data.rows import Form
from tunesmith.methods.base import Auto, LossSum, Scored
from tunesmith.methods.supervised import SupervisedHyperparameters

if TYPE_CHECKING:
    from tunesmith.data.render import Conversation, Example, Renderer

Beta = Annotated[float, Field(gt=0, le=2)]


class DpoHyperparameters(SupervisedHyperparameters):
    """The knobs of a dpo job as the wire has them; what is left out is `auto`."""

    beta: Auto | Beta = "auto"
    """How strongly the tuned model is held to the model that it starts from."""


class DpoConfig(BaseModel):
    """The `dpo` block of a job's `method`."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: DpoHyperparameters = DpoHyperparameters()


class Dpo:
    """The method `dpo`."""

    name: ClassVar[str] = "dpo"
    form: ClassVar[Form[Pair]] = PairForm()

    def groups(self, row: Pair, renderer: "Renderer", *, max_tokens: int) -> "list[tuple[Example, ...]]":
        """Render the input with each answer, preferred first; of the assistant's words the answer alone is trained."""
        ((preferred,), (other,)) = renderer.examples_of(conversations(row), max_tokens=max_tokens)
        return [(preferred, other)]

    def loss(self, scored: Scored) -> LossSum:
        """Return the loss of scored pairs as a sum and a count."""
        raise NotImplementedError


def conversations(row: Pair) -> "tuple[Conversation, Conversation]":
    """Return a row's two conversations, preferred first, in which nothing but the last message is trained."""
    context = [_untrained(message) for message in row.messages]
    preferred, other = [*context, row.preferred], [*context, row.non_preferred]
    return (preferred, row.tools, row.parallel_tool_calls), (other, row.tools, row.parallel_tool_calls)


def _untrained(message: Message) -> Message:
    return {**message, "weight": 0} if message["role"] == "assistant" else message

# pyright: basic
"""Supervised fine-tuning: the assistant's tokens are to become likely; loss is the mean of `-log p` over trained tokens."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from tunesmith.data.rows import ChatForm, Form, Row
from tunesmith.methods.base import Auto, BatchSize, Epochs, LossSum, Multiplier, Scored

if TYPE_CHECKING:
    from tunesmith.core.chat import Message
    from tunesmith.data.render import Conversation, Example, Renderer


class SupervisedHyperparameters(BaseModel):
    """The knobs of a supervised job as the wire has them; what is left out is `auto`."""

    model_config = ConfigDict(extra="forbid")

    batch_size: Auto | BatchSize = "auto"
    """Rows of the training file per optimizer step."""
    learning_rate_multiplier: Auto | Multiplier = "auto"
    """Factor on the base learning rate of the model."""
    n_epochs: Auto | Epochs = "auto"
    """Times the whole training file is gone through."""


class SupervisedConfig(BaseModel):
    """The `supervised` block of a job's `method`."""

    model_config = ConfigDict(extra="forbid")

    hyperparameters: SupervisedHyperparameters = SupervisedHyperparameters()


class Supervised:
    """The method `supervised`."""

    name: ClassVar[str] = "supervised"
    learning_rate: ClassVar[float] = 1.0
    loss_knobs: ClassVar[tuple[str, ...]] = ()
    needs_reference: ClassVar[bool] = False
    form: ClassVar[Form[Row]] = ChatForm()

    def groups(self, row: Row, renderer: "Renderer", *, max_tokens: int) -> "list[tuple[Example, ...]]":
        """Render the row's chat; a template whose prefixes are not stable gives one example per assistant turn."""
        parallel = row.parallel_tool_calls
        examples = renderer.examples(row.messages, row.tools, max_tokens=max_tokens, parallel_tool_calls=parallel)
        return [(example,) for example in examples]

    def question(self, row: Row) -> "tuple[Conversation, Message | None]":
        """Return the chat up to the last assistant message that is trained on, and that message."""
        trained = [
            place for place, each in enumerate(row.messages) if each["role"] == "assistant" and each.get("weight") != 0
        ]
        last = trained[-1]
        return (row.messages[:last], row.tools, row.parallel_tool_calls), row.messages[last]

    def loss(self, scored: Scored) -> LossSum:
        """Return the weighted sum of negative log-likelihoods, the sum of weights, and the token accuracy."""
        total = -(scored.logp_N * scored.weights_N).sum()
        hits = scored.correct_N.sum()
        accuracy = (hits, float(scored.correct_N.numel()))
        return LossSum(total, float(scored.weights_N.sum()), {"mean_token_accuracy": accuracy})

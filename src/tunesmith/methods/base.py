# pyright: basic
"""What a training method answers: how its rows are written, which examples one gives, the loss of scored tokens.

A method is a strategy, not a trainer: the one loop (`engine/loop.py`) asks it and does everything else, dividing included.
To add a method, write one file beside `supervised.py` and one line in `method.py`. Nothing here loads torch at import.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.core.chat import Message
    from tunesmith.data.render import Conversation, Example, Renderer
    from tunesmith.data.rows import Form

Auto = Literal["auto"]
Epochs = Annotated[int, Field(ge=1, le=50)]
BatchSize = Annotated[int, Field(ge=1, le=256)]
Multiplier = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True)
class Scored:
    """The trained tokens of one job in one micro-batch, with what the model said about them (N tokens in B branches)."""

    logp_N: "Tensor"
    correct_N: "Tensor"
    weights_N: "Tensor"
    #: Trained tokens of each branch, in order; a sequence that shares nothing is one branch.
    n_trained: tuple[int, ...]
    #: What the sampler said of the tokens when it chose them; None for what was written by somebody else.
    before_N: "Tensor | None" = None
    #: What the starting weights say of all trained tokens of each branch together, for methods that need it.
    reference_B: "Tensor | None" = None


@dataclass(frozen=True, slots=True)
class LossSum:
    """A loss before its division: the loop adds sums and counts over micro-batches and divides once."""

    #: A differentiable scalar.
    total: "Tensor"
    count: float
    #: Further figures of the step, each a sum and the count it is to be divided by.
    metrics: "dict[str, tuple[Tensor, float]]" = field(default_factory=dict)


class Method(Protocol):
    """A training method."""

    name: ClassVar[str]
    #: What a multiplier of 1 means, as a factor on the base learning rate of `engine/optim.py`.
    learning_rate: ClassVar[float]
    #: Hyperparameters that its loss takes, by which it is made.
    loss_knobs: ClassVar[tuple[str, ...]]
    #: Whether the loss compares with the weights that training began with.
    needs_reference: ClassVar[bool]
    #: How its rows are written; what `groups` gets are this form's rows.
    form: "ClassVar[Form[Any]]"

    def groups(self, row: Any, renderer: "Renderer", *, max_tokens: int) -> "list[tuple[Example, ...]]":
        """Return what a validated row of the training file is trained on, each example cut to `max_tokens`.

        The examples of a group are trained together; what they have in common at their beginning is computed once.
        """
        ...

    def question(self, row: Any) -> "tuple[Conversation, Message | None]":
        """Return what a model is asked by a row, and the answer that the row has to it."""
        ...

    def loss(self, scored: Scored) -> LossSum:
        """Return the loss of scored tokens as a sum and a count."""
        ...

# pyright: basic
"""What a run is: its plan, the bench that it works on, and the source that its documents come from."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from tunesmith.domain.ports import Control, Reporter
from tunesmith.engine.document import Document
from tunesmith.engine.ranks import Ranks
from tunesmith.engine.step import Tuning
from tunesmith.lm.load import Base
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.base import Method


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be trained, and where checkpoints go."""

    method: Method
    n_epochs: int
    #: Rows per optimizer step.
    batch_size: int
    learning_rate_multiplier: float
    seed: int
    #: Blob prefix of the attempt.
    output_key: str
    #: What must be equal for a checkpoint to be gone on from; it holds `base` (the name) and `pins`.
    recipe: dict[str, Any]
    #: Tokens per micro-batch; a longer example gets a row of its own.
    token_budget: int
    #: Tokens per micro-batch of documents that begin alike; None is as many.
    tree_budget: int | None = field(default=None, kw_only=True)
    #: Blob prefix of an adapter to start from, None for a fresh one.
    start_adapter: str | None = None
    #: Blob prefix of a checkpoint to go on from.
    resume_key: str | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What a source has at hand."""

    run: Run
    base: Base
    lora: LoraModel
    tuning: Tuning
    #: Slot of the adapter that training began with; None where that was the bare base.
    start_slot: int | None
    total_steps: int
    reporter: Reporter
    control: Control
    ranks: Ranks


class Interrupted(Exception):
    """A pause was asked for in the middle of something that is given up, and done anew when the run goes on."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What one optimizer step is made of."""

    documents: list[Document]
    #: Rows of the training file that they are of.
    rows: list[int]
    trained_tokens: int
    #: What was measured in making them.
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    #: Tokens that count in the division of the loss although their gradient is nought, so that they were left out.
    n_idle: int = 0


class Source(Protocol):
    """Where the documents of a run come from, and what tells how good it is by now."""

    @property
    def n_rows(self) -> int:
        """Return the rows of the training file."""
        ...

    def attach(self, bench: Bench, tensors: dict[str, Tensor]) -> None:
        """Begin to work; `tensors` are what an earlier attempt's `tensors` returned, empty at the start of a run."""
        ...

    def begin(self) -> dict[str, Any]:
        """Return what is to be told of the run before its first step."""
        ...

    def take(self, step: int) -> Taken:
        """Return what a step, counted from 1, is made of.

        Raises:
            Interrupted: a pause was asked for meanwhile.
        """
        ...

    def validate(self, step: int, values: dict[str, Any]) -> dict[str, Any]:
        """Return what was measured of a step, `values`, with what the validation file says after it, where it is its turn.

        Raises:
            Interrupted: a pause was asked for meanwhile; it is asked again with the same values when the run goes on.
        """
        ...

    def saves_at(self, step: int) -> bool:
        """Say whether a checkpoint is due after a step."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what a later attempt cannot compute again with the same bits."""
        ...

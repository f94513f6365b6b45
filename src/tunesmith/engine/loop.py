# pyright: basic
"""THE training loop: every method and every kind of run goes through `train`, one optimizer step at a time.

A step of `batch_size` rows is rendered, packed into micro-batches, sent forward and back, and applied once. The run's state
is adapter, optimizer and cursor; which rows a step takes follows from seed, epoch and row alone. So a run that goes on
from a checkpoint ends with the same bits (on a CPU, with the same number of threads) as one that was never interrupted.

Validation: one batch every `VALID_EVERY` steps and at epoch ends (`valid_*`), the whole file at epoch ends (`full_valid_*`).
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tunesmith.core.failpoint import failpoint
from tunesmith.domain.ports import Blobs, Control, Reporter
from tunesmith.engine import checkpoints
from tunesmith.engine.batch import Document, MicroBatch, micro_batches
from tunesmith.engine.checkpoints import Cursor, Saved
from tunesmith.engine.optim import Optimizer, base_learning_rate
from tunesmith.engine.order import order
from tunesmith.engine.step import Tally, Tuning, evaluate, forward_backward
from tunesmith.lm import adapter_file
from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.methods.auto import steps_per_epoch
from tunesmith.methods.base import Method

#: Steps between two validation batches.
VALID_EVERY: Final = 10
#: Rows of a validation batch, at least (a larger batch size makes it larger).
N_VALID_ROWS: Final = 8
_SLOT: Final = 0


class Rows(Protocol):
    """The rows of a file as documents; a row may give several."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> list[Document]: ...


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
    #: Blob prefix of an adapter to start from, None for a fresh one.
    start_adapter: str | None = None
    #: Blob prefix of a checkpoint to go on from.
    resume_key: str | None = None


@dataclass(frozen=True, slots=True)
class Data:
    """The rows of the training file, and of the validation file if there is one."""

    train: Rows
    valid: Rows | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: finished, or paused at a step with its checkpoint written."""

    finished: bool
    checkpoint: Saved
    trained_tokens: int
    total_steps: int


@dataclass(slots=True)
class _Session:
    """A run in progress."""

    run: Run
    base: Base
    lora: LoraModel
    data: Data
    tuning: Tuning
    total_steps: int
    step: int = 0
    trained_tokens: int = 0
    #: What was measured at the last step.
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    #: The epoch in hand and the order of its rows: to shuffle a large file takes longer than a small step.
    shuffled: tuple[int, list[int]] = (-1, [])

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(len(self.data.train), self.run.batch_size)


def train(
    run: Run, base: Base, *, lora: LoraModel, data: Data, blobs: Blobs, reporter: Reporter, control: Control
) -> Outcome:
    """Train until the last step or until a pause is asked for; write a checkpoint at every epoch's end.

    Raises:
        CheckpointRefused: the checkpoint to go on from is not one of this run.
        AdapterRefused: the adapter to start from does not fit the base.
        FloatingPointError: the loss or its gradient is not finite.
    """
    session, saved = _begin(run, base, lora, data, blobs)
    reporter.started(total_steps=session.total_steps, step=session.step)
    for step in range(session.step + 1, session.total_steps + 1):
        failpoint("train.step")
        if control.pause_asked():
            if saved is None or saved.step != session.step:
                saved = _save(session, blobs, session.values)
            return Outcome(False, saved, session.trained_tokens, session.total_steps)
        values = session.values = _advance(session, step)
        if values:
            reporter.metrics(step, session.total_steps, values)
        if step % session.steps_per_epoch == 0:
            saved = _save(session, blobs, values)
            if step < session.total_steps:
                reporter.checkpoint(saved.step, saved.key, saved.sha256, saved.metrics)
    if saved is None:
        raise ValueError("there is nothing to train: no rows or no epochs")
    return Outcome(True, saved, session.trained_tokens, session.total_steps)


def _begin(run: Run, base: Base, lora: LoraModel, data: Data, blobs: Blobs) -> tuple[_Session, Saved | None]:
    total_steps = run.n_epochs * steps_per_epoch(len(data.train), run.batch_size)
    loaded = checkpoints.read(blobs, run.resume_key, recipe=run.recipe) if run.resume_key else None
    adapter = _adapter(run, lora, blobs, loaded)
    lora.place(_SLOT, adapter)
    width = int(base.head.weight_VC.shape[1])
    peak = base_learning_rate(width) * run.learning_rate_multiplier
    optimizer = Optimizer(adapter.parameters(), total_steps=total_steps, peak=peak)
    session = _Session(run, base, lora, data, Tuning(_SLOT, run.method, adapter, optimizer), total_steps)
    if loaded is None or run.resume_key is None:
        return session, None
    session.step, session.trained_tokens = loaded.cursor.step, loaded.cursor.trained_tokens
    optimizer.restore(loaded.optimizer, n_updates=session.step)
    return session, Saved(session.step, run.resume_key, loaded.adapter_sha256, loaded.cursor.metrics)


def _adapter(run: Run, lora: LoraModel, blobs: Blobs, loaded: checkpoints.Loaded | None) -> Adapter:
    if loaded is not None:
        return adapter_file.from_folder(loaded.folder, lora)
    if run.start_adapter is not None:
        return adapter_file.from_folder(blobs.path(run.start_adapter), lora)
    return lora.fresh(seed=run.seed)


def _advance(session: _Session, step: int) -> dict[str, Any]:
    """Take one optimizer step; return what is to be reported of it."""
    epoch, index = divmod(step - 1, session.steps_per_epoch)
    run, data = session.run, session.data
    if session.shuffled[0] != epoch:
        session.shuffled = epoch, order(len(data.train), seed=run.seed, epoch=epoch)
    picked = session.shuffled[1][index * run.batch_size : (index + 1) * run.batch_size]
    documents = [document for row in picked for document in data.train[row]]
    for micro in micro_batches(documents, token_budget=run.token_budget):
        forward_backward(session.base, session.lora, [(session.tuning, micro)])
    values: dict[str, Any] = session.tuning.update()
    session.step = step
    session.trained_tokens += sum(len(document) for document in documents)
    return values | _validate(session)


def _validate(session: _Session) -> dict[str, float]:
    rows, step = session.data.valid, session.step
    at_end = step % session.steps_per_epoch == 0
    if rows is None or not len(rows) or not (at_end or step % VALID_EVERY == 0):
        return {}
    n_rows = min(len(rows), max(N_VALID_ROWS, session.run.batch_size))
    start = (step // VALID_EVERY) * n_rows
    values = _score(session, ((start + i) % len(rows) for i in range(n_rows)), "valid_")
    return values | (_score(session, range(len(rows)), "full_valid_") if at_end else {})


def _score(session: _Session, picked: Iterable[int], prefix: str) -> dict[str, float]:
    rows, tally = session.data.valid, Tally()
    documents: Iterator[Document] = itertools.chain.from_iterable(rows[row] for row in picked) if rows else iter(())
    micros: Iterator[MicroBatch] = micro_batches(documents, token_budget=session.run.token_budget)
    evaluate(session.base, session.lora, session.tuning, micros, tally)
    return tally.means(prefix)


def _save(session: _Session, blobs: Blobs, metrics: dict[str, Any]) -> Saved:
    key = f"{session.run.output_key}/checkpoints/{session.step:06d}"
    return checkpoints.write(
        blobs, key,
        adapter=session.tuning.adapter, optimizer=session.tuning.optimizer.tensors(),
        cursor=Cursor(session.step, session.trained_tokens, metrics), recipe=session.run.recipe,
    )  # fmt: skip

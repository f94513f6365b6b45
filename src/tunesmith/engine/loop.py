# pyright: basic
"""THE training loop: every method and every kind of run goes through `train`, one optimizer step at a time.

The documents of a step come from the run's source, are packed into micro-batches, sent forward and back, and applied once.
The run's state is adapter, optimizer and cursor, and what the source cannot compute again; which rows a step takes follows
from seed, epoch and row alone. So a run that goes on from a checkpoint ends with the same bits (on a CPU, with the same
number of threads) as one that was never interrupted.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tunesmith.core.failpoint import failpoint
from tunesmith.domain.ports import Blobs, Control, Reporter
from tunesmith.engine import checkpoints
from tunesmith.engine.batch import micro_batches
from tunesmith.engine.checkpoints import Cursor, Saved
from tunesmith.engine.optim import Optimizer, base_learning_rate
from tunesmith.engine.ranks import ALONE, Ranks
from tunesmith.engine.run import Bench, Interrupted, Run, Source
from tunesmith.engine.step import Tuning, forward_backward, keep_company
from tunesmith.lm import adapter_file
from tunesmith.lm.load import Base
from tunesmith.lm.lora import Adapter, LoraModel
from tunesmith.methods.auto import steps_per_epoch

#: Where the adapter lies that is trained.
SLOT: Final = 0
#: Where the adapter lies that training began with, to compare with.
START_SLOT: Final = 1
_N_ROWS_SHOWN: Final = 8


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

    bench: Bench
    source: Source
    blobs: Blobs
    step: int = 0
    trained_tokens: int = 0
    #: What was measured at the last step.
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    #: It was taken, and is to be measured on the validation file and told of.
    untold: bool = False
    #: The rows of that step; empty where an earlier attempt took it.
    rows: list[int] = field(default_factory=list[int])
    saved: Saved | None = None


def train(
    run: Run,
    base: Base,
    *,
    lora: LoraModel,
    source: Source,
    blobs: Blobs,
    reporter: Reporter,
    control: Control,
    ranks: Ranks = ALONE,
) -> Outcome:
    """Train until the last step or until a pause is asked for; write a checkpoint wherever the source says.

    Of several processes the first one alone writes and is asked for pauses; give the others a reporter that keeps silent.

    Raises:
        CheckpointRefused: the checkpoint to go on from is not one of this run.
        AdapterRefused: the adapter to start from does not fit the base.
        FloatingPointError: the loss or its gradient, or what the model says afterwards, is not finite; the message tells the
            step and the rows.
    """
    session = _begin(run, base, lora, source, blobs, reporter, control, ranks)
    total_steps = session.bench.total_steps
    reporter.started(total_steps=total_steps, step=session.step)
    try:
        if session.step == 0 and (values := source.begin()):
            reporter.metrics(0, total_steps, values)
        if session.untold:
            _tell(session)
        for step in range(session.step + 1, total_steps + 1):
            failpoint("train.step")
            if ranks.word(control.pause_asked()):
                return _paused(session)
            _advance(session, step)
            _tell(session)
    except Interrupted:
        return _paused(session)
    if session.saved is None:
        raise ValueError("there is nothing to train: no rows or no epochs")
    return Outcome(True, session.saved, session.trained_tokens, total_steps)


def start_slot_of(start_adapter: str | None) -> int | None:
    """Return the slot of what training began with; None where that is the bare base."""
    return None if start_adapter is None else START_SLOT


def _paused(session: _Session) -> Outcome:
    saved = session.saved
    if saved is None or saved.step != session.step:
        saved = _save(session)
    return Outcome(False, saved, session.trained_tokens, session.bench.total_steps)


def _begin(
    run: Run, base: Base, lora: LoraModel, source: Source, blobs: Blobs, reporter: Reporter, control: Control, ranks: Ranks
) -> _Session:
    total_steps = run.n_epochs * steps_per_epoch(source.n_rows, run.batch_size)
    loaded = checkpoints.read(blobs, run.resume_key, recipe=run.recipe) if run.resume_key else None
    adapter = _adapter(run, lora, blobs, loaded)
    lora.place(SLOT, adapter)
    start_slot = start_slot_of(run.start_adapter)
    if run.start_adapter is not None:
        lora.place(START_SLOT, adapter_file.from_folder(blobs.path(run.start_adapter), lora))
    width = int(base.head.weight_VC.shape[1])
    peak = base_learning_rate(width) * run.method.learning_rate * run.learning_rate_multiplier
    tuning = Tuning(SLOT, run.method, adapter, Optimizer(adapter.parameters(), total_steps=total_steps, peak=peak))
    bench = Bench(run, base, lora, tuning, start_slot, total_steps, reporter, control, ranks)
    source.attach(bench, {} if loaded is None else loaded.source)
    session = _Session(bench, source, blobs)
    if loaded is not None and run.resume_key is not None:
        cursor = loaded.cursor
        session.step, session.trained_tokens = cursor.step, cursor.trained_tokens
        session.values, session.untold = cursor.metrics, cursor.untold
        tuning.optimizer.restore(loaded.optimizer, n_updates=session.step)
        session.saved = Saved(session.step, run.resume_key, loaded.adapter_sha256, loaded.cursor.metrics)
    return session


def _adapter(run: Run, lora: LoraModel, blobs: Blobs, loaded: checkpoints.Loaded | None) -> Adapter:
    if loaded is not None:
        return adapter_file.from_folder(loaded.folder, lora)
    if run.start_adapter is not None:
        return adapter_file.from_folder(blobs.path(run.start_adapter), lora)
    return lora.fresh(seed=run.seed)


def _advance(session: _Session, step: int) -> None:
    """Take one optimizer step."""
    bench, source = session.bench, session.source
    with _explained(session):
        taken = source.take(step)
    session.rows = taken.rows
    run, n_tokens = bench.run, sum(map(len, taken.documents))
    budget = bench.ranks.portion(n_tokens, run.token_budget)
    shared = bench.ranks.portion(n_tokens, run.tree_budget or run.token_budget)
    for micro, counts in bench.ranks.rounds(micro_batches(taken.documents, token_budget=budget, tree_budget=shared)):
        if counts:
            forward_backward(bench.base, bench.lora, [(bench.tuning, micro)])
        else:
            keep_company(bench.base, bench.lora, bench.tuning, micro)
    with _explained(session):
        values: dict[str, Any] = taken.values | bench.tuning.update(n_idle=taken.n_idle, ranks=bench.ranks)
    session.step = step
    session.trained_tokens += taken.trained_tokens
    session.values, session.untold = values, True


@contextmanager
def _explained(session: _Session) -> Generator[None]:
    """Name the rows of the last step in what is raised of a number that is not finite: they made it so."""
    try:
        yield
    except FloatingPointError as error:
        if not session.rows:
            raise
        shown = ", ".join(str(row + 1) for row in sorted(session.rows)[:_N_ROWS_SHOWN])
        more = f" and {len(session.rows) - _N_ROWS_SHOWN} more" if len(session.rows) > _N_ROWS_SHOWN else ""
        raise FloatingPointError(f"{error}; it was computed from example {shown}{more} of the training file") from error


def _tell(session: _Session) -> None:
    """Measure the step on the validation file, report it, and write a checkpoint where one is due."""
    bench, step = session.bench, session.step
    with _explained(session):
        session.values = session.source.validate(step, session.values)
    session.untold = False
    if session.values:
        bench.reporter.metrics(step, bench.total_steps, session.values)
    if step == bench.total_steps or session.source.saves_at(step):
        saved = session.saved
        # one that an earlier attempt wrote of this step, before it was measured, is the same but for its figures
        written = None if saved is None or saved.step != step else saved
        saved = session.saved = _save(session) if written is None else replace(written, metrics=session.values)
        if step < bench.total_steps:
            bench.reporter.checkpoint(saved.step, saved.key, saved.sha256, saved.metrics)


def _save(session: _Session) -> Saved:
    bench = session.bench
    key = f"{bench.run.output_key}/checkpoints/{session.step:06d}"
    if not bench.ranks.first:
        return Saved(session.step, key, "", session.values)
    return checkpoints.write(
        session.blobs, key,
        adapter=bench.tuning.adapter, optimizer=bench.tuning.optimizer.tensors(), source=session.source.tensors(),
        cursor=Cursor(session.step, session.trained_tokens, session.values, session.untold), recipe=bench.run.recipe,
    )  # fmt: skip

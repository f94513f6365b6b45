# pyright: basic
"""The task `train`: from a `TrainSpec` to a finished adapter; checks the base, reads rows from the blobs, runs the loop.

`trained_tokens` is the number of tokens of all training examples, each cut at the base's context length, times the epochs
(of a pair: of both its branches); of reinforcement the tokens of prompt and answer of every training sample with a grade.
"""

import errno
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import structlog
import torch

from tunesmith.core.channel import Task
from tunesmith.core.failpoint import failpoint
from tunesmith.data.render import Renderer
from tunesmith.domain.ports import Blobs, Control, Drawing, Reporter
from tunesmith.domain.tasks import TrainSpec
from tunesmith.engine.checkpoints import CheckpointRefused
from tunesmith.engine.examples import Examples
from tunesmith.engine.loop import SLOT, Outcome, start_slot_of, train
from tunesmith.engine.memory import token_budget, tree_budget
from tunesmith.engine.rollouts import GraderFailing
from tunesmith.engine.rows import RowFile
from tunesmith.engine.run import Run, Source
from tunesmith.lm.adapter_file import AdapterRefused
from tunesmith.lm.blueprint import open_base
from tunesmith.lm.last_layer import trim
from tunesmith.lm.load import Base, BaseChanged, BaseRefused, check_pins, choose_device, load, prove
from tunesmith.lm.lora import LoraModel
from tunesmith.methods.method import method
from tunesmith.methods.reinforcement import Reinforcement
from tunesmith.worker.comparison import put_down
from tunesmith.worker.compose import open_sampler
from tunesmith.worker.ranks import meet
from tunesmith.worker.rollouts import open_rollouts

log = structlog.get_logger()


class TrainReporter(Reporter, Protocol):
    """The reporter of a worker: the engine's news, and the end of the task."""

    def finished(self, data: dict[str, Any], /) -> None:
        """Say that the task is done."""
        ...

    def paused(self, step: int, key: str, sha256: str, metrics: dict[str, Any], /) -> None:
        """Say at which checkpoint the training stopped, to go on from there."""
        ...

    def failed(self, code: str, param: str | None, message: str, /) -> None:
        """Say why the task cannot be done."""
        ...


class _FixedClock:
    """The time of the job's creation, for templates that print the date: every attempt sees the same."""

    def __init__(self, at: float) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return 0.0


def run(task: Task, spec: TrainSpec, reporter: TrainReporter, control: Control, blobs: Blobs) -> None:
    """Train and report; whatever has a reason that a user can act on is reported as `failed` with its code.

    Codes: `base_changed`, `base_not_supported`, `checkpoint_invalid`, `adapter_invalid`, `out_of_memory`, `disk_full`,
    `diverged`, `grader_failed`. Anything else propagates as a crash of the worker.
    """
    try:
        outcome = _train(task, spec, reporter, control, blobs)
    except (*_EXPLAINED, FloatingPointError, MemoryError, RuntimeError, OSError) as error:
        failure = _explained(error, spec)
        if failure is None:
            raise
        reporter.failed(*failure)
    else:
        saved = outcome.checkpoint
        if not outcome.finished:
            reporter.paused(saved.step, saved.key, saved.sha256, saved.metrics)
        else:
            failpoint("train.finished")
            reporter.finished(
                {
                    "step": saved.step, "key": saved.key, "sha256": saved.sha256, "metrics": saved.metrics,
                    "trained_tokens": outcome.trained_tokens,
                }
            )  # fmt: skip


def _train(task: Task, spec: TrainSpec, reporter: Reporter, control: Control, blobs: Blobs) -> Outcome:
    torch.set_num_threads(max(1, spec.threads))
    folder = Path(spec.base_path)
    check_pins(folder, spec.pins)
    ranks = meet(task, spec)
    # a base that is spread need not fit one GPU whole
    if ranks.spread:
        base = load(folder, device=torch.device("cpu"))
        lora = LoraModel(base.model)
    else:
        base, lora = open_base(folder, spec.pins, Path(spec.blueprints) if spec.blueprints else None)
    failpoint("train.load")
    trim(base.decoder, lora.route)
    if ranks.spread:
        from tunesmith.lm.shard import spread  # noqa: PLC0415 - seconds of imports

        base = spread(base, choose_device())
        prove(base)
    chosen = method(spec.method, spec.hyperparameters)
    renderer = Renderer.load(folder, clock=_FixedClock(spec.created_at) if spec.created_at else None)

    def rows(key: str) -> RowFile:
        return RowFile(
            blobs.path(key),
            method=chosen,
            renderer=renderer,
            max_tokens=spec.context_length,
            max_line_bytes=spec.max_line_bytes,
        )

    @cache
    def sampler() -> Drawing:
        return open_sampler(
            base,
            lora,
            slot=SLOT,
            start_slot=start_slot_of(spec.start_adapter),
            context_length=spec.context_length,
            stop_ids=renderer.stop_ids,
            folder=folder,
        )

    with ExitStack() as opened:
        source: Source
        if spec.method == Reinforcement.name and ranks.spread:
            raise BaseRefused(
                "A base that is spread over several processes cannot be sampled from, as reinforcement does. Switch the "
                "setting training_spread off, or take a base that one GPU holds."
            )
        if spec.method == Reinforcement.name:
            rollouts = open_rollouts(task, spec, renderer=renderer, sampler=sampler(), blobs=blobs)
            source = opened.enter_context(rollouts)
        else:
            source = Examples(rows(spec.training_key), rows(spec.validation_key) if spec.validation_key else None)
        log.info("train.loaded", job=task.job, attempt=task.attempt, device=str(base.device), dtype=str(base.dtype))
        run = _plan(task, spec, base)
        began = time.monotonic()
        outcome = train(run, base, lora=lora, source=source, blobs=blobs, reporter=reporter, control=control, ranks=ranks)
    if outcome.finished and ranks.first and not ranks.spread:
        put_down(
            spec,
            method=chosen,
            renderer=renderer,
            open_sampler=sampler,
            blobs=blobs,
            reporter=reporter,
            trained_s=time.monotonic() - began,
        )
    return outcome


def _plan(task: Task, spec: TrainSpec, base: Base) -> Run:
    knobs = spec.hyperparameters
    recipe = {
        "job": task.job, "base": spec.base_name, "pins": spec.pins, "method": spec.method, "hyperparameters": knobs,
        "seed": spec.seed, "training": spec.training_key, "validation": spec.validation_key, "start": spec.start_adapter,
        "context_length": spec.context_length,
    }  # fmt: skip
    budget = token_budget(base)
    return Run(
        method=method(spec.method, knobs),
        n_epochs=int(knobs["n_epochs"]),
        batch_size=int(knobs["batch_size"]),
        learning_rate_multiplier=float(knobs["learning_rate_multiplier"]),
        seed=spec.seed,
        output_key=spec.output_key,
        recipe=recipe,
        token_budget=budget,
        tree_budget=tree_budget(base, budget),
        start_adapter=spec.start_adapter,
        resume_key=spec.resume_key,
    )


#: Errors whose message a user can act on: code, and the parameter that it is about.
_EXPLAINED: Final[dict[type[Exception], tuple[str, str | None]]] = {
    BaseChanged: ("base_changed", "model"),
    BaseRefused: ("base_not_supported", "model"),
    CheckpointRefused: ("checkpoint_invalid", None),
    AdapterRefused: ("adapter_invalid", "model"),
    GraderFailing: ("grader_failed", "method.reinforcement.grader"),
}


def _explained(error: Exception, spec: TrainSpec) -> tuple[str, str | None, str] | None:
    """Return code, param and message of what a user can act on, None for a crash."""
    if isinstance(error, FloatingPointError):
        return (
            "diverged",
            "learning_rate_multiplier",
            f"Training diverged: {error}. Try a smaller learning_rate_multiplier than "
            f"{spec.hyperparameters.get('learning_rate_multiplier')}.",
        )
    for kind, (code, param) in _EXPLAINED.items():
        if isinstance(error, kind):
            return code, param, str(error)
    return _resource(error)


def _resource(error: Exception) -> tuple[str, str | None, str] | None:
    """Return code, param and message for an exhausted resource, None for anything else."""
    words = str(error).lower()
    short = isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in words or "out of memory" in words
    if short:
        return (
            "out_of_memory",
            None,
            "The machine ran out of memory while training. Use a smaller base model or shorter examples.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "disk_full",
            None,
            "The disk is full: a checkpoint could not be written. Free some space and create the job again.",
        )
    return None

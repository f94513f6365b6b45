"""The task `validate`: both files read whole, every row checked and rendered, tokens counted, `auto` resolved; no torch.

Rules about the text of a row are its form's (`data/rows.py`, `pairs.py`, `prompts.py`); those that need the base's tokenizer
and context are `data/lengths.py`'s, and those about a file as a whole `sources.py`'s. `tokens` are those of all training
rows. Supervised: of each example, cut at the context, as one epoch trains on it; `trained_tokens` is a multiple. dpo: of
each input with each of its two answers, both cut, so that an input counts twice. reinforcement: of the prompts, which are
never cut.
"""

from typing import Any, Final, Protocol

import structlog

from tunesmith.core.channel import Task
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.data.folder import BrokenFolder
from tunesmith.data.rows import InvalidRows, Problems
from tunesmith.data.survey import Watched
from tunesmith.data.tally import Tally
from tunesmith.domain.ports import Blobs, Control
from tunesmith.domain.tasks import ValidateSpec
from tunesmith.worker.sources import (
    N_SHOWN,
    InvalidFile,
    Source,
    context_of,
    outcome,
    sources_of,
    survey_of,
    warnings,
)

log = structlog.get_logger()

#: Seconds between two looks whether the file still exists, before the first line about the progress, and between two.
_LOOK_EVERY_S: Final = 1.0
_TELL_AFTER_S: Final = 2.0
_TELL_EVERY_S: Final = 15.0


class ValidateReporter(Protocol):
    """What validation says."""

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        """Put a line into the job's events."""
        ...

    def validated(self, data: dict[str, Any], /) -> None:
        """Say that the files are good."""
        ...

    def failed(self, code: str, param: str | None, message: str, /) -> None:
        """Say why the job cannot be run."""
        ...


def run(
    task: Task,
    spec: ValidateSpec,
    reporter: ValidateReporter,
    control: Control,  # noqa: ARG001 - every task is called alike; a validation that is paused is killed, and run again
    blobs: Blobs,
    *,
    clock: Clock | None = None,
) -> None:
    """Validate and report: `validated` with counts and resolved hyperparameters, or `failed` with what is wrong.

    Codes: `invalid_training_file`, `invalid_validation_file`, `invalid_n_examples`, `deleted_training_file`,
    `deleted_validation_file`, `base_not_found`.
    """
    clock = clock or SystemClock()
    started_at = clock.monotonic()
    try:
        data = _Validation(spec, reporter, blobs, clock).outcome()
    except InvalidFile as error:
        reporter.failed(error.code, error.param, str(error))
    except BrokenFolder as error:
        reporter.failed("base_not_found", "model", f"The job failed because the base model cannot be read: {error}")
    else:
        log.info("validate.done", job=task.job, n_examples=data["n_examples"], took_s=clock.monotonic() - started_at)
        reporter.validated(data)


class _Validation:
    """One run of the task."""

    def __init__(self, spec: ValidateSpec, reporter: ValidateReporter, blobs: Blobs, clock: Clock) -> None:
        self._spec, self._reporter, self._blobs, self._clock = spec, reporter, blobs, clock
        self._context = context_of(spec)
        self._looked_at = clock.monotonic()
        self._told_at = self._looked_at - _TELL_EVERY_S + _TELL_AFTER_S

    def outcome(self) -> dict[str, Any]:
        """Read both files and return what `validated` reports.

        Raises:
            InvalidFile: a file is not fit for the job.
            BrokenFolder: the base cannot be read.
        """
        spec = self._spec
        sources = sources_of(spec)
        self._survey = survey_of(spec)
        tallies = [self._read(source) for source in sources]
        for source in sources:
            self._look(source)
        return {**outcome(spec, *tallies), "warnings": warnings(sources, tallies, self._context)}

    def _read(self, source: Source) -> Tally:
        tally, problems = Tally(), Problems(n_shown=N_SHOWN)
        try:
            stream = self._blobs.open(source.key)
        except FileNotFoundError as error:
            raise source.deleted() from error
        with stream:
            watched = Watched(stream)
            try:
                for seen in self._survey.read(watched, problems, file_id=source.file_id):
                    tally.add(seen.row, seen.measures, self._context)
                    if self._spec.validation_key is not None:
                        tally.mark(seen.row, seen.drafts)
                    if source.n_max_examples is not None and tally.n_examples > source.n_max_examples:
                        raise source.too_large()
                    self._attend(source, watched, tally)
            except InvalidRows as error:
                raise source.invalid(str(error)) from error
        self._look(source)
        fault = source.fault(tally, problems)
        if fault is not None:
            raise fault
        return tally

    def _attend(self, source: Source, watched: Watched, tally: Tally) -> None:
        """Now and then see whether the file is still there, and say how far it is read."""
        now = self._clock.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look(source)
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            share = f" ({watched.share:.0%})" if watched.share is not None else ""
            self._reporter.message(f"Validating {source.kind} file: {tally.n_examples:,} examples read{share}")

    def _look(self, source: Source) -> None:
        try:
            self._blobs.open(source.key).close()
        except FileNotFoundError as error:
            raise source.deleted() from error

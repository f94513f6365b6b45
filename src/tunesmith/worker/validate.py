"""The task `validate`: both files read whole, every row checked and rendered, tokens counted, `auto` resolved; no torch.

Rules about the text of a row are its form's (`data/rows.py`, `pairs.py`, `prompts.py`); those that need the base's tokenizer
and context are `lengths.py`'s. `tokens` are those of all training rows. Supervised: of each example, cut at the context, as
one epoch trains on it; `trained_tokens` is a multiple. dpo: of each input with each of its two answers, both cut, so that an
input counts twice. reinforcement: of the prompts, which are never cut.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

import structlog

from tunesmith.core.channel import Task
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.data.folder import BrokenFolder
from tunesmith.data.prompts import N_MAX_TRAINING, N_MAX_VALIDATION
from tunesmith.data.render import Measure, Renderer, RenderError
from tunesmith.data.rows import N_MIN_EXAMPLES, InvalidRows, Placed, Problems, scan_rows
from tunesmith.data.spans import Draft
from tunesmith.domain.ports import Blobs, Control
from tunesmith.domain.tasks import ValidateSpec
from tunesmith.methods import auto
from tunesmith.methods.method import method
from tunesmith.worker.lengths import Context, needs
from tunesmith.worker.tally import Tally, overlap

log = structlog.get_logger()

#: Rows with the texts of their examples.
Batch = list[tuple[Placed, list[Draft]]]

#: Rows that are tokenized together: at most this many, and at most about this many characters.
_BATCH_ROWS: Final = 64
_BATCH_CHARS: Final = 200_000
#: Seconds between two looks whether the file still exists, and between two lines about the progress.
_LOOK_EVERY_S: Final = 1.0
_TELL_EVERY_S: Final = 15.0
_N_SHOWN: Final = 5


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


class InvalidFile(Exception):
    """A file that the job cannot run with: the job's error."""

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class _Source:
    """One of the job's two files."""

    #: `training` or `validation`.
    kind: str
    file_id: str
    key: str
    n_min_examples: int
    n_max_examples: int | None = None

    @property
    def param(self) -> str:
        return f"{self.kind}_file"

    def invalid(self, reason: str) -> InvalidFile:
        message = f"The job failed due to an invalid {self.kind} file. {reason}"
        return InvalidFile(f"invalid_{self.param}", self.param, message)

    def deleted(self) -> InvalidFile:
        return InvalidFile(f"deleted_{self.param}", self.param, f"The job failed because the {self.kind} file was deleted")

    def too_small(self, n_examples: int) -> InvalidFile:
        subject = f"{self.kind.capitalize()} file has {n_examples} example(s)"
        message = f"{subject}, but must have at least {self.n_min_examples} examples"
        return InvalidFile("invalid_n_examples", self.param, message)

    def too_large(self) -> InvalidFile:
        subject = f"{self.kind.capitalize()} file has more than {self.n_max_examples:,} examples"
        message = f"{subject}, the most that a reinforcement job takes"
        return InvalidFile("invalid_n_examples", self.param, message)


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


class _FixedClock:
    """The time of the job's creation, for templates that print the date."""

    def __init__(self, at: float) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return 0.0


class _Validation:
    """One run of the task."""

    def __init__(self, spec: ValidateSpec, reporter: ValidateReporter, blobs: Blobs, clock: Clock) -> None:
        self._spec, self._reporter, self._blobs, self._clock = spec, reporter, blobs, clock
        self._context = Context(spec.context_length, spec.base_name or "the base model", spec.longer_bases)
        self._form = method(spec.method).form
        self._looked_at = self._told_at = clock.monotonic()

    def outcome(self) -> dict[str, Any]:
        """Read both files and return what `validated` reports.

        Raises:
            InvalidFile: a file is not fit for the job.
            BrokenFolder: the base cannot be read.
        """
        spec = self._spec
        sources = self._sources()
        self._renderer = Renderer.load(spec.base_path, clock=_FixedClock(spec.created_at) if spec.created_at else None)
        self._needs = needs(spec.method, spec.method_config, self._renderer, self._context)
        tallies = [self._read(source) for source in sources]
        for source in sources:
            self._look(source)
        train, valid = tallies[0], tallies[1] if len(tallies) > 1 else None
        resolved = auto.resolve(spec.method, spec.method_config.get("hyperparameters") or {}, train.n_examples)
        steps = auto.steps_per_epoch(train.n_examples, resolved["batch_size"])
        return {
            "n_examples": train.n_examples,
            "n_validation_examples": valid.n_examples if valid else 0,
            "tokens": train.tokens,
            "trainable_tokens": train.trainable_tokens,
            "trained_tokens_per_epoch": train.tokens,
            "n_truncated": train.n_truncated,
            "truncated_examples": train.truncated_lines,
            "steps_per_epoch": steps,
            "total_steps": steps * resolved["n_epochs"],
            "hyperparameters": resolved,
            "warnings": self._warnings(sources, tallies),
        }

    def _warnings(self, sources: list[_Source], tallies: list[Tally]) -> list[str]:
        texts = [
            text
            for source, tally in zip(sources, tallies, strict=True)
            for text in tally.warnings(source.kind, self._context)
        ]
        return texts if len(tallies) < 2 else [*texts, *overlap(*tallies)]

    def _sources(self) -> list[_Source]:
        spec = self._spec
        limited = spec.method == "reinforcement"
        limits = (N_MAX_TRAINING, N_MAX_VALIDATION) if limited else (None, None)
        sources = [_Source("training", spec.training_file, spec.training_key, N_MIN_EXAMPLES, limits[0])]
        if spec.validation_key is not None:
            sources.append(_Source("validation", spec.validation_file or "", spec.validation_key, 1, limits[1]))
        elif limited:
            message = "The job failed because it has no validation file: reinforcement needs one beside the training file"
            raise InvalidFile("invalid_validation_file", "validation_file", message)
        return sources

    def _read(self, source: _Source) -> Tally:
        tally, problems = Tally(), Problems(n_shown=_N_SHOWN)
        try:
            stream = self._blobs.open(source.key)
        except FileNotFoundError as error:
            raise source.deleted() from error
        with stream:
            watched = _Watched(stream)
            rows = scan_rows(
                watched,
                form=self._form,
                max_line_bytes=self._spec.max_line_bytes,
                problems=problems,
                file_id=source.file_id,
            )
            try:
                for batch, measures in self._measured(_batches(self._drafted(rows, problems))):
                    self._count(batch, measures, tally, problems)
                    if source.n_max_examples is not None and tally.n_examples > source.n_max_examples:
                        raise source.too_large()
                    self._attend(source, watched, tally)
            except InvalidRows as error:
                raise source.invalid(str(error)) from error
        self._look(source)
        if problems:
            raise source.invalid(f"Invalid file format. {problems}")
        if tally.n_examples < source.n_min_examples:
            raise source.too_small(tally.n_examples)
        return tally

    def _drafted(self, rows: Iterator[Placed], problems: Problems) -> Iterator[tuple[Placed, list[Draft]]]:
        """Render each row; one that the chat template does not take is a problem."""
        for row in rows:
            try:
                yield row, self._needs.drafts(row)
            except RenderError as error:
                number = error.message_number
                problems.add(f"{row.place}{':' if number is None else f', message {number}'} {error.reason}")

    def _measured(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, Iterator[Measure]]]:
        """Tokenize a batch while the next one is read and rendered: `tokenizers` works outside of Python's lock."""
        ready: deque[tuple[Batch, Future[list[Measure]]]] = deque()
        with ThreadPoolExecutor(1) as pool:
            for batch in batches:
                drafts = [draft for _, drafts in batch for draft in drafts]
                future = pool.submit(self._renderer.measure, drafts, max_tokens=self._spec.context_length)
                ready.append((batch, future))
                if len(ready) > 1:
                    first, future = ready.popleft()
                    yield first, iter(future.result())
            for batch, future in ready:
                yield batch, iter(future.result())

    def _count(self, batch: Batch, measured: Iterator[Measure], tally: Tally, problems: Problems) -> None:
        compared = self._spec.validation_key is not None
        for row, drafts in batch:
            measures = [next(measured) for _ in drafts]
            problem = self._needs.problem(row, drafts, measures)
            if problem is not None:
                problems.add(f"{row.place}: {problem}")
            tally.add(row, measures, self._context)
            if compared:
                tally.mark(row, drafts)

    def _attend(self, source: _Source, watched: "_Watched", tally: Tally) -> None:
        """Now and then see whether the file is still there, and say how far it is read."""
        now = self._clock.monotonic()
        if now - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at = now
            self._look(source)
        if now - self._told_at >= _TELL_EVERY_S:
            self._told_at = now
            share = f" ({watched.share:.0%})" if watched.share is not None else ""
            self._reporter.message(f"Validating {source.kind} file: {tally.n_examples:,} examples read{share}")

    def _look(self, source: _Source) -> None:
        try:
            self._blobs.open(source.key).close()
        except FileNotFoundError as error:
            raise source.deleted() from error


class _Watched:
    """A stream that knows how far it was read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._n_read = 0
        self._size = stream.seek(0, 2) if stream.seekable() else None
        if self._size is not None:
            stream.seek(0)

    @property
    def share(self) -> float | None:
        """How much was read, 0 to 1, None where the size is not known."""
        return None if not self._size else self._n_read / self._size

    def read(self, n_bytes: int) -> bytes:
        piece = self._stream.read(n_bytes)
        self._n_read += len(piece)
        return piece


def _batches(rows: Iterator[tuple[Placed, list[Draft]]]) -> Iterator[Batch]:
    batch: Batch = []
    n_chars = 0
    for row, drafts in rows:
        batch.append((row, drafts))
        n_chars += sum(len(draft.text) for draft in drafts)
        if len(batch) >= _BATCH_ROWS or n_chars >= _BATCH_CHARS:
            yield batch
            batch, n_chars = [], 0
    if batch:
        yield batch

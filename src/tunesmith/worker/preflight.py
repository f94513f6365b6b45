"""The dry run of a validation: `python -m tunesmith.worker.preflight`, a spec on stdin, one JSON object on stdout; no torch.

It reads as `validate` does and ends as a job would, but goes on past what a job fails with: every file is read, errors are
told row by row. Files that take longer than the spec allows are read in part, and what they hold is reckoned from that.
"""

import json
import resource
import sys
from typing import Any, Final

from tunesmith.core.clock import Clock, SystemClock
from tunesmith.core.failpoint import failpoint
from tunesmith.data.folder import BrokenFolder
from tunesmith.data.rows import InvalidRows, Problems
from tunesmith.data.survey import Survey, Watched
from tunesmith.data.tally import Tally
from tunesmith.domain.ports import Blobs
from tunesmith.domain.tasks import DryRunSpec
from tunesmith.supervisor.child import stand_back
from tunesmith.supervisor.tree import LINUX, die_with_parent
from tunesmith.worker.compose import open_blobs
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

#: Memory of the process: a row of the largest size and its tokens have room in it.
N_MAX_BYTES: Final = 4 * 1024**3
#: Of the time, what the training file may take where there are two.
_TRAINING_SHARE: Final = 0.8


def look(spec: DryRunSpec, blobs: Blobs, clock: Clock) -> dict[str, Any]:
    """Read the files and return `error` (what a job would fail with), `files`, `outcome` and `warnings`."""
    told: dict[str, Any] = {"error": None, "files": [], "outcome": None, "warnings": []}
    context = context_of(spec.validate)
    try:
        sources = sources_of(spec.validate)
        survey = survey_of(spec.validate)
    except InvalidFile as error:
        return {**told, "error": _told(error)}
    except BrokenFolder as error:
        message = f"The job failed because the base model cannot be read: {error}"
        return {**told, "error": {"code": "base_not_found", "param": "model", "message": message}}
    began = clock.monotonic()
    ends = [began + spec.seconds * (_TRAINING_SHARE if len(sources) > 1 else 1), began + spec.seconds]
    files = [
        _File(source, survey, blobs, n_errors=spec.n_errors).read(clock, end)
        for source, end in zip(sources, ends, strict=False)
    ]
    faults = [file.fault for file in files if file.fault is not None]
    tallies = [file.tally for file in files]
    texts = warnings(sources, tallies, context)
    for file in files:
        texts += file.advice()
    return {
        "error": _told(faults[0]) if faults else None,
        "files": [file.told() for file in files],
        "outcome": outcome(spec.validate, *(file.whole() for file in files)) if tallies[0].n_examples else None,
        "warnings": texts,
    }


class _File:
    """One of the job's files, and what was found in it."""

    def __init__(self, source: Source, survey: Survey, blobs: Blobs, *, n_errors: int) -> None:
        self._source, self._survey, self._blobs = source, survey, blobs
        self.tally, self._problems = Tally(), Problems(n_shown=n_errors)
        #: What a job would fail with.
        self.fault: InvalidFile | None = None
        #: How much of it was read, by bytes.
        self._share = 1.0
        self._seconds = 0.0

    def read(self, clock: Clock, end: float) -> "_File":
        """Read the file, until `end` at the latest."""
        began = clock.monotonic()
        try:
            with self._blobs.open(self._source.key) as stream:
                watched = Watched(stream)
                for seen in self._survey.read(watched, self._problems, file_id=self._source.file_id):
                    self.tally.add(seen.row, seen.measures, self._survey.context)
                    self.tally.mark(seen.row, seen.drafts)
                    if self._source.n_max_examples is not None and self.tally.n_examples > self._source.n_max_examples:
                        self.fault = self._source.too_large()
                        break
                    if clock.monotonic() > end:
                        # what is in hand may be the file's last rows: nobody knows
                        self._share = min(watched.share or 0.5, 0.99)
                        break
        except FileNotFoundError:
            self.fault = self._source.deleted()
        except InvalidRows as error:
            self.fault = self._source.invalid(str(error))
        self._seconds = clock.monotonic() - began
        if self.fault is None and (self._complete or self._problems):
            shown = Problems(N_SHOWN, self._problems.n_total, self._problems.found[:N_SHOWN])
            self.fault = self._source.fault(self.tally, shown)
        return self

    @property
    def _complete(self) -> bool:
        return self._share == 1.0

    def whole(self) -> Tally:
        """Return the counts of the whole file, reckoned where only a part of it was read."""
        n_examples, tokens, trainable = (
            round(count / self._share) for count in (self.tally.n_examples, self.tally.tokens, self.tally.trainable_tokens)
        )
        return Tally(n_examples=n_examples, tokens=tokens, trainable_tokens=trainable)

    def advice(self) -> list[str]:
        """Say what a person would look at."""
        kind = self._source.kind
        part = (
            f"Within {self._seconds:.0f} s the first {self.tally.n_examples:,} examples of the {kind} file were read, about "
            f"{self._share:.0%} of it: what is behind them is not looked at, and its size is reckoned."
        )
        return [*([] if self._complete else [part]), *self.tally.advice(kind, whole=self._complete)]

    def told(self) -> dict[str, Any]:
        """Return what is told of the file."""
        return {
            "param": self._source.param,
            "id": self._source.file_id,
            "complete": self._complete,
            **self.tally.told(self.whole()),
            "n_errors": self._problems.n_total,
            "errors": self._problems.told(),
        }


def _told(error: InvalidFile) -> dict[str, Any]:
    return {"code": error.code, "param": error.param, "message": str(error)}


def main() -> int:
    """Read the spec, look, and write what was found."""
    spec = DryRunSpec.from_mapping(json.load(sys.stdin))
    die_with_parent(spec.parent)
    stand_back()
    if LINUX:
        resource.setrlimit(resource.RLIMIT_DATA, (N_MAX_BYTES, N_MAX_BYTES))
    failpoint("worker.preflight")
    told = look(spec, open_blobs(spec.validate.blobs), SystemClock())
    sys.stdout.write(json.dumps(told) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

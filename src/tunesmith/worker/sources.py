"""A job's files as validation and dry run read them: which there are, what each must be as a whole, what both add up to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tunesmith.data.lengths import Context
from tunesmith.data.prompts import N_MAX_TRAINING, N_MAX_VALIDATION
from tunesmith.data.render import Renderer
from tunesmith.data.rows import N_MIN_EXAMPLES, Problems
from tunesmith.data.survey import Survey
from tunesmith.data.tally import Tally, overlap
from tunesmith.domain.tasks import ValidateSpec
from tunesmith.methods import auto

#: Problems of a file that its job's error names.
N_SHOWN: Final = 5


class InvalidFile(Exception):
    """A file that the job cannot run with: the job's error."""

    def __init__(self, code: str, param: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Source:
    """One of the job's two files."""

    #: `training` or `validation`.
    kind: str
    file_id: str
    key: str
    n_min_examples: int
    n_max_examples: int | None = None

    @property
    def param(self) -> str:
        """The field of a job that names it."""
        return f"{self.kind}_file"

    def fault(self, tally: Tally, problems: Problems) -> InvalidFile | None:
        """Return what is wrong with the file once it is read, None when nothing is."""
        if problems:
            return self.invalid(f"Invalid file format. {problems}")
        return self.too_small(tally.n_examples) if tally.n_examples < self.n_min_examples else None

    def invalid(self, reason: str) -> InvalidFile:
        """Return the error of a file with rows that cannot be used."""
        message = f"The job failed due to an invalid {self.kind} file. {reason}"
        return InvalidFile(f"invalid_{self.param}", self.param, message)

    def deleted(self) -> InvalidFile:
        """Return the error of a file that is gone."""
        return InvalidFile(f"deleted_{self.param}", self.param, f"The job failed because the {self.kind} file was deleted")

    def too_small(self, n_examples: int) -> InvalidFile:
        """Return the error of a file with too few rows."""
        subject = f"{self.kind.capitalize()} file has {n_examples} example(s)"
        message = f"{subject}, but must have at least {self.n_min_examples} examples"
        return InvalidFile("invalid_n_examples", self.param, message)

    def too_large(self) -> InvalidFile:
        """Return the error of a file with too many rows."""
        subject = f"{self.kind.capitalize()} file has more than {self.n_max_examples:,} examples"
        message = f"{subject}, the most that a reinforcement job takes"
        return InvalidFile("invalid_n_examples", self.param, message)


class _FixedClock:
    """The time of the job's creation, for templates that print the date."""

    def __init__(self, at: float) -> None:
        self._at = at

    def now(self) -> float:
        return self._at

    def monotonic(self) -> float:
        return 0.0


def context_of(spec: ValidateSpec) -> Context:
    """Return the base's context, as messages tell it."""
    return Context(spec.context_length, spec.base_name or "the base model", spec.longer_bases)


def survey_of(spec: ValidateSpec) -> Survey:
    """Return what reads the files.

    Raises:
        BrokenFolder: the base cannot be read.
    """
    renderer = Renderer.load(spec.base_path, clock=_FixedClock(spec.created_at) if spec.created_at else None)
    return Survey(spec.method, spec.method_config, renderer, context_of(spec), max_line_bytes=spec.max_line_bytes)


def sources_of(spec: ValidateSpec) -> list[Source]:
    """Return the job's files, the training file first.

    Raises:
        InvalidFile: the method needs one more.
    """
    limited = spec.method == "reinforcement"
    limits = (N_MAX_TRAINING, N_MAX_VALIDATION) if limited else (None, None)
    sources = [Source("training", spec.training_file, spec.training_key, N_MIN_EXAMPLES, limits[0])]
    if spec.validation_key is not None:
        sources.append(Source("validation", spec.validation_file or "", spec.validation_key, 1, limits[1]))
    elif limited:
        message = "The job failed because it has no validation file: reinforcement needs one beside the training file"
        raise InvalidFile("invalid_validation_file", "validation_file", message)
    return sources


def outcome(spec: ValidateSpec, train: Tally, valid: Tally | None = None) -> dict[str, Any]:
    """Return counts and resolved hyperparameters of files that were read; the training file has a row at least."""
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
    }


def warnings(sources: Sequence[Source], tallies: Sequence[Tally], context: Context) -> list[str]:
    """Say what is odd about the files."""
    pairs = zip(sources, tallies, strict=True)
    texts = [text for source, tally in pairs for text in tally.warnings(source.kind, context)]
    return texts if len(tallies) < 2 else [*texts, *overlap(*tallies)]

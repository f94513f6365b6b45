"""What all graders share: a strict schema with two questions, and the ports to what they ask. A grader is one file here.

To add one: subclass `GraderBase`, answer `score` (and `check`, where it needs something of this server; `templates`, where
it fills any in), and add it to the union in `leaves.py`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, Protocol, Self

import structlog
from pydantic import BaseModel, ConfigDict

from tunesmith.core.clock import Clock

log = structlog.get_logger()

#: Beyond it a score is none: means, and how far each lies from its mean, have to stay numbers.
LARGEST_SCORE: Final = 1e30

#: What can go wrong with a grade, as the wire names it (`RunGraderResponse.metadata.errors`).
Flag = Literal[
    "formula_parse_error",
    "sample_parse_error",
    "truncated_observation_error",
    "unresponsive_reward_error",
    "invalid_variable_error",
    "other_error",
    "python_grader_server_error",
    "python_grader_runtime_error",
    "model_grader_server_error",
    "model_grader_refusal_error",
    "model_grader_parse_error",
    "model_grader_exceeded_max_tokens_error",
]


class GradingFailed(Exception):
    """A grader gives no score for this sample: what went wrong, its details, and the answer of a judge that it is about.

    `by_answer`: the answer lacks what the grader asks of it; another answer would have a score.
    """

    def __init__(self, flag: Flag, details: str, verdict: "Verdict | None" = None, *, by_answer: bool = False) -> None:
        super().__init__(details)
        self.flag: Flag = flag
        self.details = details
        self.verdict = verdict
        self.by_answer = by_answer


class GraderRefused(Exception):
    """A grader cannot work on this server: which of its fields (a path like `graders.a.model`, or "") asks for what."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message

    def within(self, outer: str) -> Self:
        """Return the same refusal as of a grader that lies in another one's field."""
        return type(self)(f"{outer}.{self.field}" if self.field else outer, self.message)


class GraderNotAvailable(GraderRefused):
    """The contract has it, this release does not."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What is graded: the row's own columns, and what the model answered to it.

    `sample` has `output_text`, `choices`, and where there are any `output_json`, `output_tools`, `output_audio`.
    """

    item: Mapping[str, Any]
    sample: Mapping[str, Any]

    @classmethod
    def of_text(cls, text: str, item: Mapping[str, Any] | None = None) -> Self:
        """Return the sample of a bare text; `output_json` is there when the text is JSON."""
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        sample: dict[str, Any] = {"output_text": text, "choices": choices, "output_tools": []}
        try:
            sample["output_json"] = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            sample["output_json"] = None
        return cls(item or {}, sample)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a judge model took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True, slots=True)
class Grade:
    """What a grader says of one sample; without a score, `errors` says why."""

    score: float | None
    errors: Mapping[Flag, str] = field(default_factory=dict[Flag, str])
    #: There is no score because of what the answer lacks, and for no other reason.
    by_answer: bool = False
    #: The grades that this one was computed from, by name.
    parts: Mapping[str, "Grade"] = field(default_factory=dict[str, "Grade"])
    #: Tokens by the name of the model that took them.
    usage: Mapping[str, Usage] = field(default_factory=dict[str, Usage])
    #: The model that judged, as it names itself.
    model: str | None = None
    #: What it took.
    seconds: float = 0.0

    @property
    def reward(self) -> float:
        """Return the score, nought without one."""
        return 0.0 if self.score is None else self.score


@dataclass(frozen=True, slots=True)
class Question:
    """What a judge is asked: chat messages with their templates filled in, and the JSON that it must answer with."""

    model: str
    #: As chat completions take them: `content` is text or a list of `text`, `image_url` and `input_audio` parts.
    messages: Sequence[Mapping[str, Any]]
    #: The JSON schema that the answer is forced into, and the schema's name.
    schema_name: str
    schema: Mapping[str, Any]
    #: What is set of chat completions' `temperature`, `top_p`, `seed`, `max_completion_tokens` and `reasoning_effort`.
    sampling: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge answered: a text that is to be JSON of the question's schema."""

    text: str
    model: str
    usage: Usage


@dataclass(frozen=True, slots=True)
class Needs:
    """What a grader needs of its judge besides text and structured output."""

    images: bool = False
    audio: bool = False
    effort: str | None = None


class Judge(Protocol):
    """The models that this server knows: bases, tuned models, models of servers upstream."""

    async def check(self, model: str, needs: Needs) -> None:
        """Raise `GraderRefused` when no such model can be asked, or it cannot do what is needed; its field says which."""
        ...

    async def ask(self, question: Question) -> Verdict:
        """Answer, after retries where they help.

        Raises:
            GradingFailed: with a flag of the judge's (`model_grader_…`).
        """
        ...


class PythonRunner(Protocol):
    """The sandbox for a stranger's Python."""

    def level(self) -> str | None:
        """Return what this host gives (`full`, `reduced`, `none`); None as long as that is being found out, from now on."""
        ...

    async def check(self, source: str, image_tag: str | None) -> None:
        """Load the source without calling it; raise `GraderRefused` when it cannot be graded with here.

        Its field is `source` (syntax, missing imports, no `grade` of two parameters), `image_tag`, or "" without a sandbox.
        """
        ...

    async def grade(self, source: str, sample: Sample) -> float:
        """Call the source's `grade(sample, item)` and return its finite number.

        Raises:
            GradingFailed: `python_grader_runtime_error` (the source's fault), `python_grader_server_error` (ours).
        """
        ...


class Embedder(Protocol):
    """The embedding models that this server knows."""

    async def check(self) -> None:
        """Raise `GraderRefused` when there is none, or no telling which is meant."""
        ...

    async def similarity(self, left: str, right: str) -> float:
        """Return the cosine of two texts' embeddings, -1 to 1.

        Raises:
            GradingFailed: `model_grader_server_error`.
        """
        ...


def no_embeddings() -> GraderRefused:
    """Return the refusal of `cosine` where no embedding model is registered."""
    why = (
        "'cosine' needs an embedding model, and this server has none: `tunesmith models add NAME --upstream URL` adds one. "
        "The other metrics need no model."
    )
    return GraderRefused("evaluation_metric", why)


@dataclass(frozen=True, slots=True)
class Tools:
    """What graders ask; made once by a fuse box. Asking for what a server does not have raises `GraderRefused`."""

    clock: Clock
    judges: Judge | None = None
    sandbox: PythonRunner | None = None
    embeddings: Embedder | None = None

    @property
    def judge(self) -> Judge:
        """The models that can be asked."""
        if self.judges is None:
            raise GraderNotAvailable("model", "Graders that ask a model are not available in this release.")
        return self.judges

    @property
    def python(self) -> PythonRunner:
        """The sandbox."""
        if self.sandbox is None:
            raise GraderNotAvailable("", "Graders of type 'python' are not available in this release.")
        return self.sandbox

    @property
    def embedder(self) -> Embedder:
        """The embedding models."""
        if self.embeddings is None:
            raise no_embeddings()
        return self.embeddings


class GraderSchema(BaseModel):
    """A part of a grader as the wire writes it: unknown fields are refused, nothing is coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class GraderBase(GraderSchema):
    """A grader: what all of them have, and the questions that each answers."""

    name: str | None = None

    async def check(self, tools: Tools, /) -> None:
        """Raise `GraderRefused` when this server cannot grade so."""

    def templates(self) -> Mapping[str, str]:
        """Return the texts that are filled in from a sample, by the field that holds each (`input[0].content`)."""
        return {}

    async def grade(self, sample: Sample, tools: Tools) -> Grade:
        """Grade one sample; whatever goes wrong is told in the grade."""
        began = tools.clock.monotonic()
        try:
            grade = await self.score(sample, tools)
        except GradingFailed as failure:
            asked = failure.verdict
            usage = {} if asked is None else {asked.model: asked.usage}
            model = None if asked is None else asked.model
            grade = Grade(None, {failure.flag: failure.details}, failure.by_answer, usage=usage, model=model)
        except Exception as error:  # one sample's grade is not another's
            log.exception("grader.crashed", grader=self.name, kind=type(self).__name__)
            grade = Grade(None, {"other_error": f"{type(error).__name__}: {error}"})
        if grade.score is not None and abs(grade.score) > LARGEST_SCORE:
            grade = replace(
                grade, score=None, errors={"other_error": f"the score {grade.score:g} is beyond {LARGEST_SCORE:g}"}
            )
        return replace(grade, seconds=tools.clock.monotonic() - began)

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Grade one sample.

        Raises:
            GradingFailed: there is no score.
        """
        raise NotImplementedError

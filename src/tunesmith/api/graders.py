"""Graders over HTTP, `/v1/fine_tuning/alpha/graders`: `validate` checks one, `run` grades one sample with it."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from fastapi import APIRouter, Depends
from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response

from tunesmith.api.deps import Caller, Served, answers_only
from tunesmith.api.wire import WireRequest, ascii_json
from tunesmith.graders.base import Flag, Grade, GradingFailed, Sample, Usage
from tunesmith.graders.grader import Grader
from tunesmith.graders.template import Path, values

router = APIRouter(tags=["Fine-tuning"])

ALPHA: Final = "/v1/fine_tuning/alpha/graders"

#: Flags of OpenAI's own operation that its answers have; here they are never set.
ELSEWHERE: Final = ("endpoint_grader_internal_error", "endpoint_grader_server_error", "endpoint_grader_safety_check_error")


class ValidateGrader(WireRequest):
    """The body of `POST …/validate`."""

    grader: Grader


class RunGrader(WireRequest):
    """The body of `POST …/run`."""

    grader: Grader
    model_sample: str
    item: dict[str, Any] | None = None
    #: The first form of the request had this in place of `item`; it is the item's `reference_answer`.
    reference_answer: Any = None

    @field_validator("reference_answer")
    @classmethod
    def _in_place_of_the_item(cls, answer: object, info: ValidationInfo) -> object:
        if answer is not None and info.data.get("item") is not None:
            raise PydanticCustomError("value", "is the earlier form of 'item': leave one out")
        return answer

    def sample(self) -> Sample:
        """Return what is to be graded."""
        item = self.item if self.reference_answer is None else {"reference_answer": self.reference_answer}
        return Sample.of_text(self.model_sample, item)


@router.post(f"{ALPHA}/validate", dependencies=[Depends(answers_only)])
async def validate_grader(body: ValidateGrader, served: Served, caller: Caller) -> Response:
    """Check a grader and echo it, with a name if it had none."""
    await served.grading.check(caller.scope, body.grader)
    return ascii_json({"grader": served.grading.named(body.grader).model_dump(exclude_unset=True)})


@router.post(f"{ALPHA}/run")
async def run_grader(body: RunGrader, served: Served, caller: Caller) -> Response:
    """Grade one sample. A grader's failure is an answer too: reward 0, and flags that tell why."""
    grader = served.grading.named(body.grader)
    grade = await served.grading.run(caller.scope, grader, body.sample())
    return ascii_json(wire_grade(str(grader.name), grader.type, grade))


@router.post("/tunesmith/v1/graders/templates", dependencies=[Depends(answers_only)])
def fill_templates(body: RunGrader) -> Response:
    """Tell what every path of a grader's templates becomes for one sample; nothing is graded, no judge is asked."""
    templates = body.grader.templates()
    filled = values(templates.values(), body.sample())
    data = [
        {
            "object": "tunesmith.grader_template",
            "field": field,
            "template": template,
            "values": [_wire_value(path, value) for path, value in found],
        }
        for (field, template), found in zip(templates.items(), filled, strict=True)
    ]
    return ascii_json({"object": "list", "data": data, "has_more": False})


def _wire_value(path: Path, value: str | GradingFailed) -> dict[str, str | None]:
    found = isinstance(value, str)
    return {"path": str(path), "text": value if found else None, "error": None if found else value.details}


def wire_grade(name: str, kind: str, grade: Grade) -> dict[str, Any]:
    """Return a grade as `RunGraderResponse` has it."""
    total = sum(grade.usage.values(), Usage()) if grade.usage else None
    return {
        "reward": grade.reward,
        "metadata": {
            "name": name,
            "type": kind,
            "errors": wire_errors(grade.errors),
            "execution_time": grade.seconds,
            "scores": {part: inner.score for part, inner in grade.parts.items()},
            "token_usage": None if total is None else _wire_usage(total),
            "sampled_model_name": grade.model,
        },
        "sub_rewards": {part: inner.reward for part, inner in grade.parts.items()},
        "model_grader_token_usage_per_model": {model: _wire_usage(usage) for model, usage in grade.usage.items()},
    }


def wire_errors(errors: Mapping[Flag, str]) -> dict[str, bool | str | None]:
    """Return every flag, and beside it what it is about."""
    details: dict[str, str] = {**errors}
    told: dict[str, bool | str | None] = {}
    for flag in (*get_args(Flag), *ELSEWHERE):
        told[flag] = flag in details
        told[f"{flag}_details"] = details.get(flag)
    kind = details.get("python_grader_server_error")
    return {**told, "python_grader_server_error_type": None if kind is None else kind.partition(":")[0]}


def _wire_usage(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
    }

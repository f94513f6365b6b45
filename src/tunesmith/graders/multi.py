"""`multi`: several graders and a formula over their scores."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from tunesmith.graders import formula
from tunesmith.graders.base import Flag, Grade, GraderBase, GraderRefused, GradingFailed, Sample, Tools, Usage
from tunesmith.graders.leaves import Leaf

N_MAX_GRADERS: Final = 100


def _by_name(graders: object) -> object:
    """Return the graders as a mapping: the guides write one, today's schema a single grader, an example a list."""
    if isinstance(graders, dict) and isinstance(cast("dict[str, Any]", graders).get("type"), str):
        graders = [graders]
    if not isinstance(graders, list):
        return cast("object", graders)
    named: dict[str, object] = {}
    for grader in cast("list[Any]", graders):
        name = cast("object", grader.get("name")) if isinstance(grader, dict) else None
        if not isinstance(name, str):
            raise PydanticCustomError("value", "written as a list needs a name in each grader: the formula speaks of it")
        if name in named:
            raise PydanticCustomError("value", "holds two graders named '{name}'", {"name": name})
        named[name] = grader
    return named


class Multi(GraderBase):
    """Compute `calculate_output` from the scores of `graders`, by their names; where one fails, so does the whole."""

    type: Literal["multi"]
    graders: Annotated[dict[str, Leaf], BeforeValidator(_by_name), Field(min_length=1, max_length=N_MAX_GRADERS)]
    calculate_output: str = Field(min_length=1, max_length=formula.N_MAX_FORMULA)

    @field_validator("graders")
    @classmethod
    def _names_can_stand_in_a_formula(cls, graders: dict[str, Leaf]) -> dict[str, Leaf]:
        for name in graders:
            if not formula.is_name(name):
                raise PydanticCustomError("value", "calls a grader '{name}', which no formula can", {"name": name})
            if name in formula.FUNCTIONS:
                raise PydanticCustomError("value", "calls a grader '{name}', which is a function's name", {"name": name})
        return graders

    @field_validator("calculate_output")
    @classmethod
    def _is_a_formula(cls, text: str, info: ValidationInfo) -> str:
        if "graders" in info.data:  # they are told of first when they are wrong themselves
            try:
                formula.parse(text, frozenset(info.data["graders"]))
            except formula.FormulaRefused as error:
                raise PydanticCustomError("value", "{why}", {"why": str(error)}) from error
        return text

    def templates(self) -> Mapping[str, str]:
        """Return the texts of every grader."""
        return {
            f"graders.{name}.{field}": text
            for name, each in self.graders.items()
            for field, text in each.templates().items()
        }

    async def check(self, tools: Tools, /) -> None:
        """Check every grader."""
        for name, grader in self.graders.items():
            try:
                await grader.check(tools)
            except GraderRefused as refused:
                raise refused.within(f"graders.{name}") from refused

    async def score(self, sample: Sample, tools: Tools, /) -> Grade:
        """Grade with all at the same time, then compute."""
        grades = await asyncio.gather(*(grader.grade(sample, tools) for grader in self.graders.values()))
        parts = dict(zip(self.graders, grades, strict=True))
        usage: dict[str, Usage] = {}
        errors: dict[Flag, str] = {}
        for name, grade in parts.items():
            for model, tokens in grade.usage.items():
                usage[model] = usage.get(model, Usage()) + tokens
            errors |= {flag: f"{name}: {details}" for flag, details in grade.errors.items()}
        value = None
        if not errors:
            try:
                program = formula.parse(self.calculate_output, frozenset(self.graders))
                value = program.compute({name: grade.reward for name, grade in parts.items()})
            except GradingFailed as failure:
                errors = {failure.flag: failure.details}
        failed = [grade for grade in parts.values() if grade.errors]
        return Grade(value, errors, bool(failed) and all(grade.by_answer for grade in failed), parts, usage)

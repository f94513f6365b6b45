"""`multi`: several graders and a formula over their scores."""

from typing import Annotated, Any, Final, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import GraderSchema
from tunesmith.graders.leaves import Leaf

N_MAX_FORMULA: Final = 4096


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


class Multi(GraderSchema):
    """Compute `calculate_output` from the scores of `graders`, by their names."""

    type: Literal["multi"]
    name: str | None = None
    graders: Annotated[dict[str, Leaf], BeforeValidator(_by_name), Field(min_length=1)]
    calculate_output: str = Field(min_length=1, max_length=N_MAX_FORMULA)

    @model_validator(mode="after")
    def _names_can_stand_in_a_formula(self) -> Self:
        wrong = [name for name in self.graders if not name.isidentifier()]
        if wrong:
            raise PydanticCustomError("value", "calls a grader '{name}', which no formula can", {"name": wrong[0]})
        return self

"""What `POST /v1/fine_tuning/jobs` takes: the whole published schema, each field with its range."""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, GetCoreSchemaHandler, model_validator
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from tunesmith.api.chat_schema import JsonSchema, SchemaName
from tunesmith.api.wire import Metadata, Text, WireRequest, storable, storable_json
from tunesmith.graders.grader import Grader

Auto = Literal["auto"]
Model = TypeVar("Model", bound=BaseModel)
MethodType = Literal["supervised", "dpo", "reinforcement"]
Effort = Literal["default", "none", "minimal", "low", "medium", "high", "xhigh", "max"]

MAX_SEED: Final = 2**31 - 1


#: Beyond it a multiplier is a slip of the keyboard, and 64-bit floats are near their end.
N_LARGEST: Final = 1e30
#: All samples of an evaluation are held until they are graded.
N_MOST_EVAL_SAMPLES: Final = 256


@dataclass(frozen=True, slots=True)
class Whole:
    """Marks a field as `"auto"` or a whole number from `low` to `high`; null means `"auto"`."""

    low: int
    high: int | None = None

    def check(self, value: object) -> int | Auto:
        """Return the value, or refuse it."""
        if value is None or value == "auto":
            return "auto"
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        high, bounded = self.high or MAX_SEED, self.high is not None
        if isinstance(value, int) and not isinstance(value, bool):
            if self.low <= value <= high:
                return value
            bounded = bounded or value > high
        span = f"from {self.low} to {high}" if bounded else f"of at least {self.low}"
        raise PydanticCustomError("value", "must be 'auto' or a whole number {span}", {"span": span})

    def __get_pydantic_core_schema__(self, _source: object, _next: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.int_schema(ge=self.low, le=self.high)
        return core_schema.no_info_plain_validator_function(self.check, json_schema_input_schema=_or_auto(number))


@dataclass(frozen=True, slots=True)
class Number:
    """Marks a field as `"auto"` or a number above `above` and at most `high`; null means `"auto"`."""

    above: float
    high: float | None = None

    def check(self, value: object) -> float | Auto:
        """Return the value, or refuse it."""
        if value is None or value == "auto":
            return "auto"
        high, bounded = self.high or N_LARGEST, self.high is not None
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.above < value <= high:
                return value
            bounded = bounded or value > high
        span = f"above {self.above:g}" + (f" and at most {high:g}" if bounded else "")
        raise PydanticCustomError("value", "must be 'auto' or a number {span}", {"span": span})

    def __get_pydantic_core_schema__(self, _source: object, _next: GetCoreSchemaHandler) -> CoreSchema:
        number = core_schema.float_schema(gt=self.above, le=self.high)
        return core_schema.no_info_plain_validator_function(self.check, json_schema_input_schema=_or_auto(number))


def _or_auto(number: CoreSchema) -> CoreSchema:
    return core_schema.union_schema([core_schema.literal_schema(["auto"]), number])


def _or_default(effort: object) -> object:
    return "default" if effort is None else effort


def _kept(part: Model) -> Model:
    """Return a part of a method that is kept as it came, or refuse what a database or UTF-8 cannot hold."""
    storable_json(part.model_dump(exclude_unset=True, by_alias=True))
    return part


class SupervisedHyperparameters(WireRequest):
    """How a supervised job trains."""

    batch_size: Annotated[int | Auto, Whole(1, 256)] = "auto"
    learning_rate_multiplier: Annotated[float | Auto, Number(0)] = "auto"
    n_epochs: Annotated[int | Auto, Whole(1, 50)] = "auto"


class DpoHyperparameters(SupervisedHyperparameters):
    """How a preference job trains."""

    beta: Annotated[float | Auto, Number(0, 2)] = "auto"


class ReinforcementHyperparameters(SupervisedHyperparameters):
    """How a reinforcement job trains."""

    compute_multiplier: Annotated[float | Auto, Number(1e-5, 10)] = "auto"
    eval_interval: Annotated[int | Auto, Whole(1)] = "auto"
    eval_samples: Annotated[int | Auto, Whole(1, N_MOST_EVAL_SAMPLES)] = "auto"
    reasoning_effort: Annotated[Effort, BeforeValidator(_or_default)] = "default"


class SupervisedMethod(WireRequest):
    """The `supervised` block."""

    hyperparameters: SupervisedHyperparameters | None = None


class DpoMethod(WireRequest):
    """The `dpo` block."""

    hyperparameters: DpoHyperparameters | None = None


class AnswerFormat(WireRequest):
    """The form that answers are sampled in; a schema stands in a block of its own (OpenAI) or beside the type (Azure)."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    name: SchemaName | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _one_schema_where_there_is_to_be_one(self) -> Self:
        beside = [name for name in ("name", "description", "schema", "strict") if self._said(name) is not None]
        if self.type != "json_schema" and (beside or self.json_schema is not None):
            raise PydanticCustomError(
                "value",
                "of type '{type}' takes no '{field}': that is for the type 'json_schema'",
                {"type": self.type, "field": beside[0] if beside else "json_schema"},
            )
        if self.json_schema is not None and beside:
            raise PydanticCustomError(
                "value", "has '{field}' beside 'json_schema': put it into that block", {"field": beside[0]}
            )
        block = self.json_schema or self
        if self.type == "json_schema" and (block.name is None or block.schema_ is None):
            raise PydanticCustomError("value", "of type 'json_schema' needs 'json_schema' with a 'name' and a 'schema'")
        return self

    def _said(self, name: str) -> object:
        return self.schema_ if name == "schema" else getattr(self, name)


class ReinforcementMethod(WireRequest):
    """The `reinforcement` block."""

    grader: Annotated[Grader, AfterValidator(_kept)]
    hyperparameters: ReinforcementHyperparameters | None = None
    response_format: Annotated[AnswerFormat, AfterValidator(_kept)] | None = None


class Method(WireRequest):
    """How to tune: the type, and the block of that type."""

    type: MethodType
    supervised: SupervisedMethod | None = None
    dpo: DpoMethod | None = None
    reinforcement: ReinforcementMethod | None = None

    @model_validator(mode="after")
    def _only_the_block_of_the_type(self) -> Self:
        for name in ("supervised", "dpo", "reinforcement"):
            if name != self.type and getattr(self, name) is not None:
                raise PydanticCustomError(
                    "value", "has type '{type}' and a block '{block}': leave one out", {"type": self.type, "block": name}
                )
        if self.type == "reinforcement" and self.reinforcement is None:
            raise PydanticCustomError("value", "of type 'reinforcement' needs the block 'reinforcement' with its grader")
        return self


class Wandb(WireRequest):
    """Where Weights & Biases is to record a job."""

    project: Text
    name: Text | None = None
    entity: Text | None = None
    tags: list[Annotated[str, Field(max_length=64)]] | None = Field(default=None, max_length=50)


class Integration(WireRequest):
    """Something that a job tells its progress to."""

    type: Literal["wandb"]
    wandb: Wandb


class CreateJobRequest(WireRequest):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: Text
    training_file: Text
    validation_file: Text | None = None
    suffix: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(storable)] | None = None
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    method: Method | None = None
    #: Deprecated in favour of `method`.
    hyperparameters: SupervisedHyperparameters | None = None
    integrations: list[Integration] | None = Field(default=None, max_length=5)
    metadata: Metadata | None = None

    @property
    def method_type(self) -> MethodType:
        """Return the method asked for, supervised when none is."""
        return "supervised" if self.method is None else self.method.type

    def method_config(self) -> dict[str, Any]:
        """Return the method's block with `auto` in place of every hyperparameter left out."""
        block = None if self.method is None else getattr(self.method, self.method_type)
        hyperparameters = self.hyperparameters if block is None else block.hyperparameters
        filled = hyperparameters or _DEFAULTS[self.method_type]()
        return {**self._as_it_came(), "hyperparameters": filled.model_dump()}

    @property
    def reinforcement(self) -> ReinforcementMethod | None:
        """Return the block of that method, where it is the one asked for."""
        return None if self.method is None else self.method.reinforcement

    def _as_it_came(self) -> dict[str, Any]:
        """Return what a block holds beside its hyperparameters, without defaults: it is echoed as it was written."""
        block = self.reinforcement
        if block is None:
            return {}
        form = block.response_format
        return {
            "grader": block.grader.model_dump(exclude_unset=True),
            "response_format": None if form is None else form.model_dump(exclude_unset=True, by_alias=True),
        }


_DEFAULTS: Final = {
    "supervised": SupervisedHyperparameters,
    "dpo": DpoHyperparameters,
    "reinforcement": ReinforcementHyperparameters,
}

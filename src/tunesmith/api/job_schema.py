"""What `POST /v1/fine_tuning/jobs` takes: the whole published schema, each field with its range."""

import math
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tunesmith.api.wire import Text, WireRequest
from tunesmith.graders.grader import Grader

Auto = Literal["auto"]
MethodType = Literal["supervised", "dpo", "reinforcement"]

N_METADATA: Final = 16
N_METADATA_KEY: Final = 64
N_METADATA_VALUE: Final = 512


def _whole(low: int, high: int | None) -> Any:
    """Return the type of a field that is `"auto"` or a whole number in a range; null means `"auto"`."""
    span = f"from {low} to {high}" if high is not None else f"of at least {low}"

    def check(value: object) -> int | Auto:
        if value is None or value == "auto":
            return "auto"
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value and (high is None or value <= high)
        if not fits or not isinstance(value, int):
            raise PydanticCustomError("value", "must be 'auto' or a whole number {span}", {"span": span})
        return value

    number: dict[str, Any] = {"type": "integer", "minimum": low} | ({} if high is None else {"maximum": high})
    return Annotated[int | Auto, PlainValidator(check), WithJsonSchema(_or_auto(number))]


def _number(above: float, high: float | None) -> Any:
    """Return the type of a field that is `"auto"` or a number above a bound; null means `"auto"`."""
    span = f"above {above:g}" + (f" and at most {high:g}" if high is not None else "")

    def check(value: object) -> float | Auto:
        if value is None or value == "auto":
            return "auto"
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not isinstance(value, int | float) or not above < value or (high is not None and value > high):
            raise PydanticCustomError("value", "must be 'auto' or a number {span}", {"span": span})
        if value > N_LARGEST or not math.isfinite(value):
            raise PydanticCustomError("value", "must be 'auto' or a number {span}, and finite", {"span": span})
        return value

    number: dict[str, Any] = {"type": "number", "exclusiveMinimum": above} | ({} if high is None else {"maximum": high})
    return Annotated[float | Auto, PlainValidator(check), WithJsonSchema(_or_auto(number))]


#: Beyond it a multiplier is a typing error, and 64-bit floats are near their end.
N_LARGEST: Final = 1e30


def _or_auto(number: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [{"type": "string", "enum": ["auto"]}, number], "default": "auto"}


class SupervisedHyperparameters(WireRequest):
    """How a supervised job trains."""

    batch_size: _whole(1, 256) = "auto"
    learning_rate_multiplier: _number(0, None) = "auto"
    n_epochs: _whole(1, 50) = "auto"


class DpoHyperparameters(SupervisedHyperparameters):
    """How a preference job trains."""

    beta: _number(0, 2) = "auto"


class ReinforcementHyperparameters(SupervisedHyperparameters):
    """How a reinforcement job trains."""

    compute_multiplier: _number(1e-5, 10) = "auto"
    eval_interval: _whole(1, None) = "auto"
    eval_samples: _whole(1, None) = "auto"
    reasoning_effort: Literal["default", "none", "minimal", "low", "medium", "high", "xhigh", "max"] = "default"


class SupervisedMethod(WireRequest):
    """The `supervised` block."""

    hyperparameters: SupervisedHyperparameters | None = None


class DpoMethod(WireRequest):
    """The `dpo` block."""

    hyperparameters: DpoHyperparameters | None = None


class ReinforcementMethod(WireRequest):
    """The `reinforcement` block."""

    grader: Grader
    hyperparameters: ReinforcementHyperparameters | None = None
    response_format: dict[str, Any] | None = None


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
    tags: list[Annotated[Text, Field(max_length=64)]] | None = Field(default=None, max_length=50)


class Integration(WireRequest):
    """Something that a job tells its progress to."""

    type: Literal["wandb"]
    wandb: Wandb


class CreateJobRequest(WireRequest):
    """The body of `POST /v1/fine_tuning/jobs`."""

    model: Text
    training_file: Text
    validation_file: Text | None = None
    suffix: Annotated[Text, Field(min_length=1, max_length=64)] | None = None
    seed: int | None = Field(default=None, ge=0, le=2**31 - 1)
    method: Method | None = None
    #: Deprecated in favour of `method`.
    hyperparameters: SupervisedHyperparameters | None = None
    integrations: list[Integration] | None = Field(default=None, max_length=5)
    metadata: dict[Text, Text] | None = None

    @field_validator("metadata")
    @classmethod
    def _metadata_fits(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        if metadata is None:
            return None
        if len(metadata) > N_METADATA:
            raise PydanticCustomError("value", "holds at most {limit} pairs", {"limit": N_METADATA})
        for key, value in metadata.items():
            if len(key) > N_METADATA_KEY or len(value) > N_METADATA_VALUE:
                raise PydanticCustomError(
                    "value",
                    "has keys of at most {key} characters and values of at most {value}",
                    {"key": N_METADATA_KEY, "value": N_METADATA_VALUE},
                )
        return metadata

    @property
    def method_type(self) -> MethodType:
        """Return the method asked for, supervised when none is."""
        return "supervised" if self.method is None else self.method.type

    def method_config(self) -> dict[str, Any]:
        """Return the method's block with `auto` in place of every hyperparameter left out."""
        block = None if self.method is None else getattr(self.method, self.method_type)
        hyperparameters = self.hyperparameters if block is None else block.hyperparameters
        filled = hyperparameters or _DEFAULTS[self.method_type]()
        others = {} if block is None else block.model_dump(exclude={"hyperparameters"})
        return {**others, "hyperparameters": filled.model_dump()}


_DEFAULTS: Final = {
    "supervised": SupervisedHyperparameters,
    "dpo": DpoHyperparameters,
    "reinforcement": ReinforcementHyperparameters,
}

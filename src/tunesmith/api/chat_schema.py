"""The request body of chat completions: what works, what is accepted without effect, what another release brings."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast

from pydantic import Field

from tunesmith.api.wire import Metadata, Text, WireRequest, shown
from tunesmith.core.chat import InvalidMessage, check_functions, check_messages, check_tools, modern
from tunesmith.core.errors import ApiError, InvalidRequest, NotAvailable
from tunesmith.core.tool_choice import ToolChoice, check_function_call, check_tool_choice
from tunesmith.services.chat import ChatRequest

N_MAX_STOPS: Final = 4

#: Fields that only steer OpenAI's own operation: accepted, documented, without effect.
WITHOUT_EFFECT: Final = frozenset(
    {
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    }
)

#: Fields that ask for what this release does not do, with the values that ask for nothing.
NOT_YET: Final[dict[str, tuple[Any, ...]]] = {
    "audio": (),
    "modalities": (["text"],),
    "moderation": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(WireRequest):
    """What a stream carries beside the answer; `include_obfuscation` is OpenAI's own and without effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


SchemaName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


class JsonSchema(WireRequest):
    """A schema by name; the answer keeps to it whether `strict` says so or not."""

    name: SchemaName
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(WireRequest):
    """The form of an answer: text as it comes, some JSON object, JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class PredictedPart(WireRequest):
    """A part of a predicted answer."""

    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class Prediction(WireRequest):
    """What much of the answer will be; it saves OpenAI time, changes no answer, and is without effect here."""

    type: Literal["content"]
    content: str | Annotated[list[PredictedPart], Field(min_length=1)]


class CreateChatCompletion(WireRequest):
    """The body of `POST /v1/chat/completions`, every field of the contract."""

    model: Text
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    stop: str | list[str] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    parallel_tool_calls: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    audio: Any = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    function_call: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    metadata: Metadata | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    moderation: Any = None
    prediction: Prediction | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: str | None = None
    reasoning_effort: Effort | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    tool_choice: str | dict[str, Any] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    user: str | None = None
    verbosity: str | None = None
    web_search_options: Any = None

    def checked(self) -> ChatRequest:
        """Return the request for the service.

        Raises:
            NotAvailable: a field asks for what this release does not do.
            InvalidRequest: fields contradict one another, or messages or tools break a rule.
        """
        for name, idle in NOT_YET.items():
            value = getattr(self, name)
            if value is not None and value not in idle:
                way_out = " or ".join(["leave it out", *(f"say {json.dumps(each)}" for each in idle)])
                raise NotAvailable(f"'{name}' {shown(value)} is not available in this release: {way_out}.", param=name)
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest(
                "'max_tokens' and 'max_completion_tokens' say the same: leave one out.", param="max_completion_tokens"
            )
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("'top_logprobs' wants 'logprobs': true.", param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' is only for 'stream': true.", param="stream_options")
        if self.metadata and not self.store:
            raise InvalidRequest(
                "The 'metadata' parameter is only allowed when 'store' is enabled: say 'store' true, or leave it out.",
                param="metadata",
            )
        said = self.model_dump(by_alias=True, include={"messages", "tools", "functions", "stop", "user", "response_format"})
        for name, value in said.items():
            refuse_broken(name, value)
        tools = self._tools()
        return ChatRequest(
            model=self.model,
            messages=self._messages(),
            tools=tools,
            tool_choice=self._tool_choice(tools),
            old_functions=self.functions is not None,
            n=self.n or 1,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stops=stop_strings(self.stop),
            seed=self.seed,
            reasoning_effort=self.reasoning_effort,
            parallel_tool_calls=self.parallel_tool_calls if self.functions is None else False,
            schema=self._schema(),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=token_biases(self.logit_bias),
            logprobs=bool(self.logprobs),
            top_logprobs=self.top_logprobs or 0,
            form=self._form(),
        )

    def _messages(self) -> list[dict[str, Any]]:
        try:
            return modern(check_messages(_unparsed(self.messages), images=True))
        except InvalidMessage as error:
            raise _refusal(error, "messages") from error

    def _tools(self) -> list[dict[str, Any]] | None:
        """Return the tools; `functions` are what they were before."""
        if self.functions is not None:
            for name in ("tools", "tool_choice", "parallel_tool_calls"):
                if getattr(self, name) is not None:
                    raise InvalidRequest(f"'{name}' replaces 'functions': leave one out.", param=name)
        try:
            if self.functions is not None:
                return check_functions(self.functions)
            return check_tools(self.tools) if self.tools else None
        except InvalidMessage as error:
            raise _refusal(error, "tools" if self.functions is None else "functions") from error

    def _tool_choice(self, tools: list[dict[str, Any]] | None) -> ToolChoice:
        old = self.functions is not None
        if self.function_call not in (None, "auto", "none") and not old:
            raise InvalidRequest("'function_call' needs 'functions' to choose from.", param="function_call")
        try:
            return check_function_call(self.function_call, tools) if old else check_tool_choice(self.tool_choice, tools)
        except InvalidMessage as error:
            raise _refusal(error, "function_call" if old else "tool_choice") from error

    def _schema(self) -> dict[str, Any] | None:
        """Return the JSON schema that `response_format` asks for."""
        form = self.response_format
        if form is not None and (form.json_schema is not None) != (form.type == "json_schema"):
            raise InvalidRequest(
                "'response_format.json_schema' is for the type 'json_schema', which needs one.",
                param="response_format.json_schema",
            )
        if form is None or form.type == "text":
            return None
        if form.json_schema is not None:
            return form.json_schema.schema_ or {}
        # As OpenAI has it: a model that is not told of JSON would fill the form with nothing that was asked for.
        if "json" not in json.dumps(self.messages).lower():
            raise InvalidRequest(
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
                param="messages",
            )
        return {"type": "object"}

    def _form(self) -> dict[str, Any] | None:
        form = self.response_format
        return None if form is None or form.type == "text" else form.model_dump(exclude_unset=True, by_alias=True)


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """Return the strings that end an answer.

    Raises:
        InvalidRequest: they are too many, or one is empty.
    """
    stops = [stop] if isinstance(stop, str) else stop or []
    if len(stops) > N_MAX_STOPS or not all(stops):
        raise InvalidRequest(
            f"'stop' must be up to {N_MAX_STOPS} sequences, none of them empty (got {shown(stop)}).", param="stop"
        )
    return tuple(stops)


def token_biases(biases: Mapping[str, float] | None) -> dict[int, float]:
    """Return biases by the ids of their tokens.

    Raises:
        InvalidRequest: a key is no id.
    """
    ids: dict[int, float] = {}
    for key, bias in (biases or {}).items():
        if not (key.isascii() and key.isdecimal() and len(key) < 10):
            raise InvalidRequest(
                f"'logit_bias' must map token ids, such as \"42\", to biases: {shown(key)} is no id of a token.",
                param="logit_bias",
            )
        ids[int(key)] = bias
    return ids


def _unparsed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what the official clients add to an answer that they parse, and send back with it."""
    plain: list[dict[str, Any]] = []
    for message in messages:
        said = {key: value for key, value in message.items() if key != "parsed"}
        calls = said.get("tool_calls")
        if isinstance(calls, list):
            said["tool_calls"] = [_unparsed_call(call) for call in cast("list[Any]", calls)]
        plain.append(said)
    return plain


def _unparsed_call(call: Any) -> Any:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        return call
    return {**call, "function": {key: value for key, value in call["function"].items() if key != "parsed_arguments"}}


def _refusal(error: InvalidMessage, name: str) -> ApiError:
    kind = NotAvailable if error.not_available else InvalidRequest
    param = error.param(name)
    return kind(error.reason if param == name and name in ("messages", "tools") else f"{param}: {error.reason}", param=param)


def refuse_broken(name: str, value: object) -> None:
    """Refuse half a surrogate pair, which JSON can write and no tokenizer can read, and numbers that JSON cannot write.

    Raises:
        InvalidRequest: the value holds one; lists are told by the item.
    """
    items = [(f"{name}[{index}]", item) for index, item in enumerate(value)] if isinstance(value, list) else [(name, value)]
    for place, item in items:
        try:
            json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise InvalidRequest(f"'{place}' holds {half!r}, half of a surrogate pair and no text.", param=place) from error
        except ValueError as error:
            raise InvalidRequest(
                f"'{place}' holds NaN or an infinite number, which JSON does not have.", param=place
            ) from error

"""The request body of the Responses API: what works, what is accepted without effect, what this release does not have."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from tunesmith.api.chat_schema import SchemaName, refuse_broken
from tunesmith.api.responses_items import chat_tool_choice, chat_tools, whole_items, wire_tools
from tunesmith.api.wire import Metadata, Text, WireRequest, shown
from tunesmith.core.chat import InvalidMessage, Tool, check_tools
from tunesmith.core.errors import ApiError, InvalidRequest, NotAvailable
from tunesmith.core.ids import Ids
from tunesmith.core.tool_choice import ToolChoice, check_tool_choice
from tunesmith.services.chat import ChatRequest
from tunesmith.services.responses import ResponseRequest

#: Fields that only steer OpenAI's own operation, or tools that OpenAI runs: accepted, documented, without effect.
WITHOUT_EFFECT: Final = frozenset(
    {
        "max_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "stream_options",
        "user",
    }
)

#: Fields that ask for what this release does not do, with the values that ask for nothing and the way out.
NOT_YET: Final[dict[str, tuple[tuple[Any, ...], str]]] = {
    "access_programs": ((), "leave it out"),
    "background": ((False,), "wait for the answer, or stream it"),
    "background_options": ((), "leave it out"),
    "context_management": (([],), "say 'truncation' \"auto\", or send less"),
    "conversation": ((), "go on from a response by 'previous_response_id'"),
    "image": ((), "leave it out"),
    "moderation": ((), "leave it out"),
    "prompt": ((), "send its text as 'instructions' and 'input'"),
}

#: The same, of the fields within fields.
NOT_YET_WITHIN: Final[dict[str, tuple[Any, ...]]] = {
    "reasoning.summary": (),
    "reasoning.generate_summary": (),
    "reasoning.context": ("auto",),
    "reasoning.mode": ("standard",),
    "text.verbosity": ("medium",),
}

#: What can be asked to be told beside the answer; only the first has anything to tell here.
LOGPROBS: Final = "message.output_text.logprobs"
Includable = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]


class StreamOptions(WireRequest):
    """What a stream carries beside the answer; it is OpenAI's own and without effect."""

    include_obfuscation: bool | None = None


class Reasoning(WireRequest):
    """How much a model thinks; nothing of it is summed up."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: Text | None = None


class TextFormat(WireRequest):
    """The form of an answer: text as it comes, some JSON object, JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: SchemaName | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(WireRequest):
    """How the text of an answer is."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Prompted(WireRequest):
    """What says which prompt a model reads."""

    model: Text | None = None
    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: Text | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None

    conversation: Any = None


class CreateResponse(Prompted):
    """The body of `POST /v1/responses`, every field of the contract."""

    max_output_tokens: Annotated[int, Field(ge=16)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    include: list[Includable] | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    access_programs: Any = None
    background: bool | None = None
    background_options: Any = None
    context_management: Any = None
    image: Any = None
    max_tool_calls: int | None = None
    moderation: Any = None
    prompt: Any = None
    prompt_cache_key: Text | None = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    safety_identifier: Text | None = None
    service_tier: Text | None = None
    user: Text | None = None

    @property
    def stored(self) -> bool:
        """Say whether the response is stored: it is unless the request says otherwise."""
        return self.store is not False

    def checked(self, ids: Ids) -> ResponseRequest:
        """Return the request for the service.

        Raises:
            NotAvailable: a field asks for what this release does not do.
            InvalidRequest: fields contradict one another, or items or tools break a rule.
        """
        for name, (idle, way_out) in NOT_YET.items():
            value = getattr(self, name)
            if value is not None and value not in idle:
                raise NotAvailable(f"'{name}' {shown(value)} is not available in this release: {way_out}.", param=name)
        for path, idle in NOT_YET_WITHIN.items():
            outer, name = path.split(".")
            value = getattr(getattr(self, outer), name, None)
            if value is not None and value not in idle:
                raise NotAvailable(f"'{path}' {shown(value)} is not available in this release: leave it out.", param=path)
        if self.model is None or self.input is None:
            name = "model" if self.model is None else "input"
            raise InvalidRequest(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")
        if not self.input and self.previous_response_id is None:
            raise InvalidRequest("'input' must hold text or at least one item.", param="input", code="invalid_value")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' is only for 'stream': true.", param="stream_options")
        said = self.model_dump(by_alias=True, include={"input", "instructions", "tools", "text", "tool_choice"})
        for name, value in said.items():
            refuse_broken(name, value)
        items = whole_items(self.input, ids)
        tools = self._tools()
        chat = ChatRequest(
            model=self.model,
            messages=(),
            tools=tools,
            tool_choice=self._tool_choice(tools),
            max_tokens=self.max_output_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            parallel_tool_calls=self.parallel_tool_calls,
            schema=self._schema(),
            reasoning_effort=None if self.reasoning is None else self.reasoning.effort,
            logprobs=bool(self.top_logprobs) or LOGPROBS in (self.include or ()),
            top_logprobs=self.top_logprobs or 0,
        )
        return ResponseRequest(
            chat=chat,
            input=items,
            instructions=self.instructions,
            previous_id=self.previous_response_id,
            truncate=self.truncation == "auto",
        )

    def _tools(self) -> list[Tool] | None:
        try:
            return check_tools(chat_tools(self.tools)) if self.tools else None
        except InvalidMessage as error:
            raise _refusal(error, "tools") from error

    def _tool_choice(self, tools: list[Tool] | None) -> ToolChoice:
        try:
            return check_tool_choice(chat_tool_choice(self.tool_choice), tools)
        except InvalidMessage as error:
            raise _refusal(error, "tool_choice") from error

    def _schema(self) -> Mapping[str, Any] | None:
        """Return the JSON schema that `text.format` asks for."""
        form = None if self.text is None else self.text.format
        if form is None:
            return None
        if form.type == "json_schema":
            for name, value in (("name", form.name), ("schema", form.schema_)):
                if value is None:
                    param = f"text.format.{name}"
                    raise InvalidRequest(
                        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
                    )
            return form.schema_
        beside = sorted(form.model_dump(by_alias=True, exclude_none=True).keys() - {"type"})
        if beside:
            param = f"text.format.{beside[0]}"
            raise InvalidRequest(f"'{param}' is for the type 'json_schema' alone.", param=param)
        if form.type == "text":
            return None
        # As OpenAI has it: a model that is not told of JSON would fill the form with nothing that was asked for.
        if "json" not in json.dumps([self.input, self.instructions]).lower():
            raise InvalidRequest(
                "'input' must contain the word 'json' in some form, to use 'text.format' of type 'json_object'.",
                param="input",
            )
        return {"type": "object"}

    def wire(self, request: ResponseRequest) -> dict[str, Any]:
        """Return what the object of a response repeats of its request."""
        form = None if self.text is None or self.text.format is None else self.text.format
        shown_form = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_unset=True)
        if shown_form["type"] == "json_schema":
            shown_form = {"description": None, "strict": None, **shown_form}
        return {
            "model": self.model,
            "instructions": self.instructions,
            "previous_response_id": self.previous_response_id,
            "tools": wire_tools(request.chat.tools or ()),
            "tool_choice": self.tool_choice or "auto",
            "parallel_tool_calls": self.parallel_tool_calls is not False,
            "text": {"format": shown_form, "verbosity": "medium"},
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "temperature": request.chat.temperature,
            "top_p": request.chat.top_p,
            "top_logprobs": request.chat.top_logprobs,
            "reasoning": {"effort": request.chat.reasoning_effort, "summary": None},
            "truncation": self.truncation or "disabled",
            "metadata": self.metadata or {},
            "store": self.stored,
            "background": False,
            "service_tier": "default",
            "prompt_cache_key": self.prompt_cache_key,
            "prompt_cache_retention": self.prompt_cache_retention,
            "safety_identifier": self.safety_identifier,
            "user": self.user,
        }


def _refusal(error: InvalidMessage, name: str) -> ApiError:
    """Return the refusal of a tool or a choice, its place as it is written here: flat, where chat has blocks."""
    param = error.param(name).replace(".function", "").replace(".allowed_tools", "")
    kind = NotAvailable if error.not_available else InvalidRequest
    return kind(f"{param}: {error.reason}", param=param)

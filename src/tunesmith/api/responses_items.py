"""Items and tools of the Responses API as they are sent: checked, named in refusals, and brought into their whole form."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from tunesmith.api.refusals import explain
from tunesmith.api.wire import Text, WireRequest, shown
from tunesmith.core.chat import InvalidMessage, check_messages
from tunesmith.core.errors import ApiError, InvalidRequest, NotAvailable
from tunesmith.core.ids import Ids
from tunesmith.data.items import Item, messages_of

Model = TypeVar("Model", bound=WireRequest)
Status = Literal["in_progress", "completed", "incomplete"]
#: Types of items that OpenAI has and this release does not.
OTHER_ITEMS: Final = {
    "additional_tools", "apply_patch_call", "apply_patch_call_output", "code_interpreter_call", "compaction",
    "compaction_trigger", "computer_call", "computer_call_output", "configuration_update", "custom_tool_call",
    "custom_tool_call_output", "file_search_call", "image_generation_call", "item_reference", "local_shell_call",
    "local_shell_call_output", "mcp_approval_request", "mcp_approval_response", "mcp_call", "mcp_list_tools", "program",
    "program_output", "shell_call", "shell_call_output", "tool_search_call", "tool_search_output",
    "web_search_call",
}  # fmt: skip
OTHER_PARTS: Final = {"input_file", "input_audio", "reasoning_text", "summary_text"}
OTHER_TOOLS: Final = {
    "apply_patch", "code_interpreter", "computer", "computer_use_preview", "custom", "file_search", "image_generation",
    "local_shell", "mcp", "namespace", "programmatic_tool_calling", "shell", "tool_search", "web_search",
    "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
}  # fmt: skip


class InputText(WireRequest):
    """Text of a user, or of an instruction."""

    type: Literal["input_text"]
    text: str
    prompt_cache_breakpoint: Any = None


class InputImage(WireRequest):
    """An image, by its address."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["low", "high", "auto", "original"] = "auto"
    file_id: Any = None
    prompt_cache_breakpoint: Any = None


class OutputText(WireRequest):
    """Text that a model said; what stands beside it says nothing."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(WireRequest):
    """A model's refusal."""

    type: Literal["refusal"]
    refusal: str


class MessageItem(WireRequest):
    """A message; its text may stand without a part."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer", "assistant"]
    content: str | list[dict[str, Any]]
    id: Text | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(WireRequest):
    """A call that a model made."""

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: str
    id: Text | None = None
    status: Status | None = None
    namespace: Any = None
    caller: Any = None


class FunctionCallOutput(WireRequest):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: Text
    output: str | list[dict[str, Any]]
    id: Text | None = None
    status: Status | None = None
    name: Text | None = None
    namespace: Any = None
    caller: Any = None


class ReasoningItem(WireRequest):
    """What a model thought; it is not told to it again."""

    type: Literal["reasoning"]
    id: Text | None = None
    summary: list[dict[str, Any]] | None = None
    content: list[dict[str, Any]] | None = None
    encrypted_content: str | None = None
    status: Status | None = None


class FunctionTool(WireRequest):
    """A function that a model may call."""

    type: Literal["function"]
    name: Text
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    output_schema: Any = None
    defer_loading: bool | None = None
    allowed_callers: Any = None


class NamedFunction(WireRequest):
    """A function by its name, in a choice."""

    type: Literal["function"]
    name: str


class AllowedTools(WireRequest):
    """The functions among which a model may choose."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]] = Field(min_length=1)


_ITEMS: Final[Mapping[str, type[MessageItem | FunctionCall | FunctionCallOutput | ReasoningItem]]] = {
    "message": MessageItem,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": ReasoningItem,
}
_SAID: Final[Mapping[str, type[WireRequest]]] = {"output_text": OutputText, "refusal": Refusal}
_SENT: Final[Mapping[str, type[WireRequest]]] = {"input_text": InputText, "input_image": InputImage}

#: Fields of items, parts and tools that ask for what this release does not do.
_LATER: Final = ("file_id", "namespace", "caller", "output_schema", "defer_loading", "allowed_callers")


def whole_items(value: str | Sequence[dict[str, Any]], ids: Ids) -> list[Item]:
    """Return what `input` says as items, each with an id and its content in parts.

    Raises:
        InvalidRequest: an item breaks a rule; NotAvailable where this release lacks what it is.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    items = [_whole(item, f"input[{place}]", ids) for place, item in enumerate(value)]
    messages, places = messages_of(items)
    try:
        if messages:
            check_messages(messages, images=True)
    except InvalidMessage as error:
        place = f"input[{places[(error.number or 1) - 1]}]"
        param = f"{place}.{error.field}" if error.field else place
        kind = NotAvailable if error.not_available else InvalidRequest
        raise kind(f"{param}: {error.reason}", param=param) from error
    return items


def _whole(value: dict[str, Any], place: str, ids: Ids) -> Item:
    kind = value.get("type") or ("message" if "role" in value else "item_reference")
    if not isinstance(kind, str) or kind not in _ITEMS:
        raise _unknown("an item", kind, f"{place}.type", _ITEMS, OTHER_ITEMS)
    item = read(_ITEMS[kind], {**value, "type": kind}, place)
    if isinstance(item, MessageItem):
        known = _SAID if item.role == "assistant" else _SENT
        plain = "output_text" if item.role == "assistant" else "input_text"
        content: Any = [{"type": plain, "text": item.content}] if isinstance(item.content, str) else item.content
        parts = [_part(part, f"{place}.content[{number}]", known) for number, part in enumerate(content)]
        said: Item = {"role": item.role, "content": parts}
    elif isinstance(item, FunctionCall):
        said = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
    elif isinstance(item, ReasoningItem):
        said = {"summary": item.summary or [], "content": item.content or []}
    else:
        output: Any = item.output
        if not isinstance(output, str):
            output = [_part(part, f"{place}.output[{number}]", _SENT) for number, part in enumerate(output)]
        said = {"call_id": item.call_id, "output": output}
    own = item.id or ids.item({"message": "msg", "reasoning": "rs"}.get(kind, "fc"))
    return {"id": own, "type": kind, "status": item.status or "completed", **said}


def _part(value: object, place: str, known: Mapping[str, type[WireRequest]]) -> dict[str, Any]:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in known:
        raise _unknown("a part", kind, f"{place}.type", known, OTHER_PARTS)
    part = read(known[kind], value, place)
    if isinstance(part, OutputText):
        return {"type": "output_text", "text": part.text, "annotations": [], "logprobs": []}
    return part.model_dump(exclude={"prompt_cache_breakpoint", "file_id"})


def chat_tools(value: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tools in the form of chat.

    Raises:
        InvalidRequest: a tool breaks a rule; NotAvailable where OpenAI would run it itself.
    """
    tools: list[dict[str, Any]] = []
    for place, tool in enumerate(value):
        kind = tool.get("type")
        if kind != "function":
            raise _unknown("a tool", kind, f"tools[{place}].type", {"function": FunctionTool}, OTHER_TOOLS)
        known = read(FunctionTool, tool, f"tools[{place}]")
        wanted = known.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)
        tools.append({"type": "function", "function": wanted})
    return tools


def wire_tools(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return tools of chat in the form of a response."""
    unset = {"description": None, "parameters": None, "strict": False}
    return [{"type": "function", **unset, **tool["function"]} for tool in tools]


def chat_tool_choice(value: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """Return a choice in the form of chat.

    Raises:
        InvalidRequest: it breaks a rule; NotAvailable where it names a tool that OpenAI would run itself.
    """
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    if kind == "function":
        return {"type": "function", "function": {"name": read(NamedFunction, value, "tool_choice").name}}
    if kind != "allowed_tools":
        known = {"function": NamedFunction, "allowed_tools": AllowedTools}
        raise _unknown("a choice", kind, "tool_choice.type", known, OTHER_TOOLS)
    allowed = read(AllowedTools, value, "tool_choice")
    named = [_named(tool, f"tool_choice.tools[{place}]") for place, tool in enumerate(allowed.tools)]
    return {"type": "allowed_tools", "allowed_tools": {"mode": allowed.mode, "tools": named}}


def _named(value: dict[str, Any], place: str) -> dict[str, Any]:
    if value.get("type") != "function":
        raise _unknown("a tool", value.get("type"), f"{place}.type", {"function": NamedFunction}, OTHER_TOOLS)
    return {"type": "function", "function": {"name": read(NamedFunction, value, place).name}}


def read(kind: type[Model], value: object, place: str) -> Model:
    """Return a value as what it should be; a null says nothing, as in chat, where clients write all that they know of.

    Raises:
        InvalidRequest: it is not, told by its place.
        NotAvailable: it holds what this release does not do.
    """
    said = {name: held for name, held in value.items() if held is not None} if isinstance(value, dict) else value
    try:
        model = kind.model_validate(said)
    except ValidationError as error:
        faults = [{**fault, "loc": ("body", place, *fault["loc"])} for fault in error.errors()]
        raise explain(faults, {place: value}) from error
    for name in _LATER:
        if getattr(model, name, None):
            param = f"{place}.{name}"
            raise NotAvailable(f"'{param}' is not available in this release: leave it out.", param=param)
    return model


def _unknown(what: str, kind: object, param: str, known: Mapping[str, object], other: Collection[str]) -> ApiError:
    names = ", ".join(f"'{name}'" for name in known)
    if isinstance(kind, str) and kind in other:
        return NotAvailable(
            f"'{param}': {what} of type '{kind}' is not available in this release; those of type {names} are. Leave it out.",
            param=param,
        )
    return InvalidRequest(f"'{param}' must be one of {names} (got {shown(kind)}).", param=param, code="invalid_value")

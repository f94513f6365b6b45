"""Chat messages and tools as the wire has them, checked once for training rows and chat completions alike.

Checks are plain code over parsed JSON: they run on every message of every training file, and their words reach the user.
A checked message is the same dictionary that came in; `modern` turns the retired function calls into tool calls.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

Message = dict[str, Any]
Tool = dict[str, Any]

N_MAX_FUNCTIONS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Content parts that OpenAI has and this release does not.
_OTHER_MEDIA: Final = {"image_url": "images", "input_audio": "audio", "file": "files"}


class InvalidMessage(ValueError):
    """A message or tool breaks the rules; `str()` is the reason, `field` the way to it inside the message."""

    def __init__(self, reason: str, *, field: str = "", number: int | None = None, not_available: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        #: 1-based position among the messages or tools; None when the list itself is wrong.
        self.number = number
        #: The contract has it, this release does not.
        self.not_available = not_available

    def param(self, name: str) -> str:
        """Return the wire's name of the place, such as `messages[0].content`, given the name of the list."""
        place = name if self.number is None else f"{name}[{self.number - 1}]"
        return f"{place}.{self.field}" if self.field else place


def check_messages(value: object, *, training: bool = False, images: bool = False) -> list[Message]:
    """Check a conversation; `training` allows `weight` on assistant messages, `images` images in what users say.

    Raises:
        InvalidMessage: naming the first message that breaks a rule.
    """
    if not isinstance(value, list) or not value:
        raise InvalidMessage("messages must be a list of at least one message")
    for number, message in enumerate(value, start=1):
        try:
            _check_message(message, training, images)
        except InvalidMessage as error:
            error.number = number
            raise
    return value


def check_tools(value: object) -> list[Tool]:
    """Check a list of tools.

    Raises:
        InvalidMessage: naming the first tool that breaks a rule.
    """
    if not isinstance(value, list):
        raise InvalidMessage(f"tools must be a list, not {_kind(value)}")
    for number, tool in enumerate(value, start=1):
        try:
            _check_tool(tool)
        except InvalidMessage as error:
            error.number = number
            raise
    return value


def check_functions(value: object) -> list[Tool]:
    """Check the retired `functions` list and return it as tools.

    Raises:
        InvalidMessage: naming the first function that breaks a rule.
    """
    if not isinstance(value, list) or not 1 <= len(value) <= N_MAX_FUNCTIONS:
        raise InvalidMessage(f"functions must be a list of 1 to {N_MAX_FUNCTIONS} functions")
    for number, function in enumerate(value, start=1):
        try:
            _check_function(function, "")
        except InvalidMessage as error:
            error.number = number
            raise
    return [{"type": "function", "function": function} for function in value]


def modern(messages: Iterable[Message]) -> list[Message]:
    """Return checked messages with `function_call` as `tool_calls` and role `function` as role `tool`.

    The calls get ids that the answers refer to: an answer belongs to the last call of its function's name.
    """
    changed: list[Message] = []
    ids: dict[str, str] = {}
    for message in messages:
        call = message.get("function_call")
        if call is not None:
            identity = f"call_{len(changed)}"
            ids[call["name"]] = identity
            kept = {key: value for key, value in message.items() if key != "function_call"}
            changed.append({**kept, "tool_calls": [{"id": identity, "type": "function", "function": call}]})
        elif message["role"] == "function":
            identity = ids.get(message["name"], f"call_{len(changed)}")
            content = message.get("content") or ""
            changed.append({"role": "tool", "name": message["name"], "content": content, "tool_call_id": identity})
        else:
            changed.append(message)
    return changed


def text_of(content: object) -> str | None:
    """Return checked content as one text, parts joined without a separator; None stays None."""
    if content is None or isinstance(content, str):
        return content
    assert isinstance(content, list)
    return "".join(part.get("text", part.get("refusal", "")) for part in content)


def _check_message(message: object, training: bool, images: bool) -> None:
    if not isinstance(message, dict):
        raise InvalidMessage(f"A message must be an object, not {_kind(message)}")
    if "role" not in message:
        raise InvalidMessage("Discriminator 'role' is missing in value", field="role")
    role = message["role"]
    rule = _RULES.get(role) if isinstance(role, str) else None
    if rule is None:
        known = ", ".join(f"'{name}'" for name in _RULES)
        raise InvalidMessage(f"No match for discriminator 'role' and value {role!r} (allowed values: {known})", field="role")
    allowed, check = rule
    if not message.keys() <= allowed:
        _refuse_keys(message, allowed, training, role)
    if training and message.get("reasoning_content") is not None:
        raise InvalidMessage("reasoning_content is for chat completions only", field="reasoning_content")
    if "weight" in message:
        _check_weight(message["weight"], training)
    if images and role == "user":
        check = _check_seen
    check(message)


def _refuse_keys(message: Message, allowed: frozenset[str], training: bool, role: str) -> None:
    """Drop unknown keys that hold null, as data set libraries write them; refuse the others by name."""
    unknown = sorted(key for key in message if key not in allowed and message[key] is not None)
    if "weight" in unknown and training:
        raise InvalidMessage("weight is for assistant messages only", field="weight")
    if unknown:
        raise InvalidMessage(f"Unknown field {unknown[0]!r} in a message of role {role!r}", field=unknown[0])
    for key in [key for key in message if key not in allowed]:
        del message[key]


def _check_weight(weight: object, training: bool) -> None:
    if weight is None:
        return
    if not training:
        raise InvalidMessage("weight is for training files only", field="weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1):
        raise InvalidMessage(f"weight must be 0 or 1, not {_shown(weight)}", field="weight")


def _check_instruction(message: Message) -> None:
    _check_content(message, allowed=("text",))
    _check_name(message)


def _check_user(message: Message) -> None:
    _check_content(message, allowed=("text",))
    _check_name(message)


def _check_seen(message: Message) -> None:
    _check_content(message, allowed=("text", "image_url"))
    _check_name(message)


def _check_assistant(message: Message) -> None:
    if len(message) == 2 and isinstance(message.get("content"), str):
        return
    for key in ("audio", "annotations"):
        if message.get(key):
            raise InvalidMessage(f"{key} of an assistant message is not available", field=key, not_available=True)
    if message.get("content") is not None:
        _check_content(message, allowed=("text", "refusal"))
    if not isinstance(message.get("reasoning_content"), str | None):
        kind = _kind(message["reasoning_content"])
        raise InvalidMessage(f"reasoning_content must be a string, not {kind}", field="reasoning_content")
    refusal = message.get("refusal")
    if not isinstance(refusal, str | None):
        raise InvalidMessage(f"refusal must be a string, not {_kind(refusal)}", field="refusal")
    if refusal and message.get("content"):
        raise InvalidMessage("A message holds either content or a refusal, not both", field="refusal")
    _check_name(message)
    _check_calls_of(message)
    if all(message.get(key) is None for key in ("content", "refusal", "tool_calls", "function_call")):
        raise InvalidMessage("content is required unless tool_calls, function_call or refusal is given", field="content")


def _check_calls_of(message: Message) -> None:
    calls, call = message.get("tool_calls"), message.get("function_call")
    if calls is not None:
        _check_calls(calls)
    if call is not None:
        _check_called(call, "function_call")
    if calls and call:
        raise InvalidMessage("A message holds either tool_calls or a function_call, not both", field="function_call")


def _check_answer(message: Message) -> None:
    _check_content(message, allowed=("text",))
    if not isinstance(message.get("tool_call_id"), str):
        raise InvalidMessage("tool_call_id is required and must be a string", field="tool_call_id")
    _check_name(message)


def _check_function_answer(message: Message) -> None:
    if not isinstance(message.get("name"), str):
        raise InvalidMessage("name is required and must be a string", field="name")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise InvalidMessage(f"content must be a string or null, not {_kind(content)}", field="content")


def _check_content(message: Message, *, allowed: Sequence[str]) -> None:
    content = message.get("content")
    if isinstance(content, str):
        return
    if content is None:
        raise InvalidMessage("content is required", field="content")
    if not isinstance(content, list):
        raise InvalidMessage(f"content must be a string or a list of parts, not {_kind(content)}", field="content")
    if not content:
        raise InvalidMessage("content must have at least one part", field="content")
    for index, part in enumerate(content):
        _check_part(part, f"content[{index}]", allowed)


def _check_part(part: object, field: str, allowed: Sequence[str]) -> None:
    if not isinstance(part, dict):
        raise InvalidMessage(f"{field} must be an object, not {_kind(part)}", field=field)
    kind = part.get("type")
    if kind == "image_url" and kind in allowed:
        _check_image(part, field)
        return
    if isinstance(kind, str) and kind in _OTHER_MEDIA:
        raise InvalidMessage(
            f"{field} has type {kind!r}: {_OTHER_MEDIA[kind]} are not available", field=field, not_available=True
        )
    if kind not in allowed:
        known = ", ".join(f"'{name}'" for name in allowed)
        raise InvalidMessage(f"{field} has type {_shown(kind)}; known here: {known}", field=field)
    if not isinstance(part.get(kind), str):
        raise InvalidMessage(f"{field}.{kind} is required and must be a string", field=f"{field}.{kind}")
    unknown = sorted(part.keys() - {"type", kind, "prompt_cache_breakpoint"})
    if unknown:
        raise InvalidMessage(f"Unknown field {unknown[0]!r} in {field}", field=f"{field}.{unknown[0]}")


def _check_image(part: Mapping[str, Any], field: str) -> None:
    _check_object(part, field, required=("type", "image_url"), optional=("prompt_cache_breakpoint",))
    field = f"{field}.image_url"
    image = _check_object(part["image_url"], field, required=("url",), optional=("detail",))
    if not isinstance(image["url"], str):
        raise InvalidMessage(f"{field}.url must be a string, not {_kind(image['url'])}", field=f"{field}.url")
    if image.get("detail") not in (None, "auto", "low", "high"):
        reason = f"{field}.detail must be 'auto', 'low' or 'high', not {_shown(image['detail'])}"
        raise InvalidMessage(reason, field=f"{field}.detail")


def _check_name(message: Message) -> None:
    name = message.get("name")
    if name is not None and not isinstance(name, str):
        raise InvalidMessage(f"name must be a string, not {_kind(name)}", field="name")


def _check_calls(calls: object) -> None:
    if not isinstance(calls, list) or not calls:
        raise InvalidMessage("tool_calls must be a list of at least one call", field="tool_calls")
    for index, call in enumerate(calls):
        field = f"tool_calls[{index}]"
        _refuse_custom(call, f"{field}.type")
        _check_object(call, field, required=("id", "type", "function"))
        if not isinstance(call["id"], str):
            raise InvalidMessage(f"{field}.id must be a string, not {_kind(call['id'])}", field=f"{field}.id")
        if call["type"] != "function":
            raise InvalidMessage(f"{field}.type must be 'function', not {_shown(call['type'])}", field=f"{field}.type")
        _check_called(call["function"], f"{field}.function")


def _check_called(call: object, field: str) -> None:
    checked = _check_object(call, field, required=("name", "arguments"))
    for key in ("name", "arguments"):
        if not isinstance(checked[key], str):
            hint = " of JSON" if key == "arguments" else ""
            reason = f"{field}.{key} must be a string{hint}, not {_kind(checked[key])}"
            raise InvalidMessage(reason, field=f"{field}.{key}")


def _refuse_custom(value: object, field: str) -> None:
    if isinstance(value, dict) and value.get("type") == "custom":
        raise InvalidMessage("Custom tools are not available, tools of type 'function' are", field=field, not_available=True)


def _check_tool(tool: object) -> None:
    _refuse_custom(tool, "type")
    if isinstance(tool, dict) and tool.get("type") not in (None, "function"):
        raise InvalidMessage(f"A tool's type must be 'function', not {_shown(tool['type'])}", field="type")
    checked = _check_object(tool, "", required=("type", "function"))
    _check_function(checked["function"], "function")


def _check_function(function: object, field: str) -> None:
    dot = f"{field}." if field else ""
    checked = _check_object(function, field, required=("name",), optional=("description", "parameters", "strict"))
    name, parameters, description = checked["name"], checked.get("parameters"), checked.get("description")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        reason = f"A function's name must be 1 to 64 letters, digits, underscores or dashes, not {_shown(name)}"
        raise InvalidMessage(reason, field=f"{dot}name")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidMessage(f"parameters must be a JSON Schema object, not {_kind(parameters)}", field=f"{dot}parameters")
    if description is not None and not isinstance(description, str):
        raise InvalidMessage(f"description must be a string, not {_kind(description)}", field=f"{dot}description")
    if not isinstance(checked.get("strict"), bool | None):
        raise InvalidMessage("strict must be true or false", field=f"{dot}strict")


def _check_object(value: object, field: str, *, required: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, Any]:
    place = field or "The entry"
    if not isinstance(value, dict):
        raise InvalidMessage(f"{place} must be an object, not {_kind(value)}", field=field)
    dot = f"{field}." if field else ""
    for key in required:
        if key not in value:
            raise InvalidMessage(f"{place} lacks {key!r}", field=f"{dot}{key}")
    unknown = sorted(value.keys() - {*required, *optional})
    if unknown:
        raise InvalidMessage(f"Unknown field {unknown[0]!r} in {place[0].lower() + place[1:]}", field=f"{dot}{unknown[0]}")
    return value


def _kind(value: object) -> str:
    """Name a JSON value's type as a user knows it."""
    if value is None:
        return "null"
    names: dict[object, str] = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


_PLAIN: Final = frozenset({"role", "content", "name"})
#: By role: the fields it may have, and the check of their values.
_RULES: Final[dict[str, tuple[frozenset[str], Callable[[Message], None]]]] = {
    "system": (_PLAIN, _check_instruction),
    "developer": (_PLAIN, _check_instruction),
    "user": (_PLAIN, _check_user),
    "assistant": (
        _PLAIN | {"reasoning_content", "refusal", "audio", "annotations", "tool_calls", "function_call", "weight"},
        _check_assistant,
    ),
    "tool": (_PLAIN | {"tool_call_id"}, _check_answer),
    "function": (_PLAIN, _check_function_answer),
}

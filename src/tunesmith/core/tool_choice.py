"""Which of its tools a model may or must call: `tool_choice` as the wire has it, and as the rest of the house asks it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

from tunesmith.core.chat import InvalidMessage, Tool

Mode = Literal["auto", "none", "required"]
_FORMS: Final = (
    '"auto", "none", "required", {"type": "function", "function": {"name": …}}, or '
    '{"type": "allowed_tools", "allowed_tools": {"mode": …, "tools": […]}}'
)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are called, and which."""

    mode: Mode = "auto"
    #: The functions that may be called; None where all of them may.
    names: tuple[str, ...] | None = None
    #: One function was asked for by its name: it is called once, and the answer ends with `stop`.
    named: bool = False

    def allows(self, name: str) -> bool:
        """Say whether a function may be called."""
        return self.mode != "none" and (self.names is None or name in self.names)

    @property
    def wire(self) -> str | dict[str, Any]:
        """The choice as chat completions have it."""
        if self.names is None:
            return self.mode
        if self.named:
            return {"type": "function", "function": {"name": self.names[0]}}
        tools = [{"type": "function", "function": {"name": name}} for name in self.names]
        return {"type": "allowed_tools", "allowed_tools": {"mode": self.mode, "tools": tools}}


AUTO: Final = ToolChoice()


def check_tool_choice(value: object, tools: Sequence[Tool] | None) -> ToolChoice:
    """Check a choice among checked tools; None is `auto`.

    Raises:
        InvalidMessage: it is none of the forms, or names what is not among the tools.
    """
    if value is None or value == "auto":
        return AUTO
    if value in ("none", "required"):
        choice = ToolChoice(cast("Mode", value))
    elif isinstance(value, dict) and value.get("type") == "function":
        choice = ToolChoice("required", (_name(value, "function"),), named=True)
    elif isinstance(value, dict) and value.get("type") == "allowed_tools":
        choice = _allowed(value)
    elif isinstance(value, dict) and value.get("type") == "custom":
        raise InvalidMessage(
            "Custom tools are not available, tools of type 'function' are", field="type", not_available=True
        )
    else:
        raise InvalidMessage(f"tool_choice must be {_FORMS}, not {value!r}")
    if choice.mode != "none" and not tools:
        raise InvalidMessage("a choice other than 'auto' and 'none' needs 'tools' to choose from")
    known = [tool["function"]["name"] for tool in tools or []]
    for index, name in enumerate(choice.names or ()):
        if name not in known:
            field = "function.name" if choice.named else f"allowed_tools.tools[{index}].function.name"
            raise InvalidMessage(f"{name!r} is none of the tools ({', '.join(known)})", field=field)
    return choice


def check_function_call(value: object, tools: Sequence[Tool] | None) -> ToolChoice:
    """Check the retired `function_call` among functions, given as tools.

    Raises:
        InvalidMessage: it is none of the forms, or names what is not among them.
    """
    if value is None or value in ("auto", "none"):
        return check_tool_choice(value, tools)
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise InvalidMessage(f'function_call must be "auto", "none" or {{"name": …}}, not {value!r}')
    _only(value, {"name"}, "")
    try:
        return check_tool_choice({"type": "function", "function": value}, tools)
    except InvalidMessage as error:
        raise InvalidMessage(error.reason.replace("tools", "functions"), field="name") from error


def _allowed(value: Mapping[str, Any]) -> ToolChoice:
    block = value.get("allowed_tools")
    _only(value, {"type", "allowed_tools"}, "")
    if not isinstance(block, dict) or block.get("mode") not in ("auto", "required"):
        raise InvalidMessage("mode must be 'auto' or 'required'", field="allowed_tools.mode")
    _only(block, {"mode", "tools"}, "allowed_tools.")
    tools = block.get("tools")
    if not isinstance(tools, list) or not tools:
        raise InvalidMessage("tools must be a list of at least one tool", field="allowed_tools.tools")
    names: list[str] = []
    for index, tool in enumerate(tools):
        place = f"allowed_tools.tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            raise InvalidMessage("an allowed tool must have the type 'function'", field=f"{place}.type")
        names.append(_name(tool, f"{place}.function"))
    return ToolChoice(cast("Mode", block["mode"]), tuple(dict.fromkeys(names)))


def _name(value: Mapping[str, Any], field: str) -> str:
    """Return the name in `{"type": "function", "function": {"name": …}}`; `field` is the way to its block."""
    block = value.get("function")
    _only(value, {"type", "function"}, field.removesuffix("function"))
    if not isinstance(block, dict) or not isinstance(block.get("name"), str):
        raise InvalidMessage("the function's name is required and must be a string", field=f"{field}.name")
    return block["name"]


def _only(value: Mapping[str, Any], known: set[str], dot: str) -> None:
    unknown = sorted(value.keys() - known)
    if unknown:
        raise InvalidMessage(f"Unknown field {unknown[0]!r}", field=f"{dot}{unknown[0]}")

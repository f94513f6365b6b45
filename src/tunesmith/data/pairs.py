"""The form of dpo files: an input, and two answers to it of which one is preferred."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tunesmith.core.chat import InvalidMessage, Message, Tool, check_messages, modern, text_of
from tunesmith.data.jsonl import Line
from tunesmith.data.rows import parallel_of, place_of, refuse_format, refuse_unknown, tools_of

if TYPE_CHECKING:
    from tunesmith.data.render import Conversation

#: Today's names of the two answers, and what the first published schema called them.
PREFERRED: Final = "preferred_output"
NON_PREFERRED: Final = "non_preferred_output"
OLDER: Final = {PREFERRED: "preferred_completion", NON_PREFERRED: "non_preferred_completion"}
_INPUT_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
_UNEXPECTED: Final = f"Unexpected file format, expected the keys input, {PREFERRED} and {NON_PREFERRED}."


@dataclass(frozen=True, slots=True)
class Pair:
    """One checked example of a dpo file."""

    #: 1-based, as an editor counts.
    line: int
    #: 1-based among the lines that are not blank.
    example: int
    messages: list[Message]
    tools: list[Tool] | None
    parallel_tool_calls: bool | None
    preferred: Message
    non_preferred: Message
    #: The answers have the names of the first schema.
    older_names: bool = False

    @property
    def place(self) -> str:
        """What the row is called in errors."""
        return place_of(self.example, self.line)


class PairForm:
    """Preferences: `input`, `preferred_output`, `non_preferred_output`; or the answers by their older names."""

    name: ClassVar[str] = "dpo"
    messages: ClassVar[str] = "input.messages"

    def check_format(self, content: dict[str, Any], file_id: str) -> None:
        """Tell another method's format from a mistake, by the first row.

        Raises:
            InvalidRows: the file is of another format.
        """
        if not content.keys() & {*OLDER, *OLDER.values()} and ("messages" in content or "input" not in content):
            raise refuse_format(self.name, content, file_id, unexpected=_UNEXPECTED)

    def row(self, content: dict[str, Any], line: Line, example: int) -> Pair:
        """Return the row of a line's object.

        Raises:
            InvalidMessage: naming the first rule that it breaks.
        """
        names = {name: _name(content, name) for name in OLDER}
        refuse_unknown(content, frozenset({"input", *names.values()}))
        given = content.get("input")
        if given is None:
            raise InvalidMessage("'input' is missing")
        if not isinstance(given, dict):
            raise InvalidMessage("input must be an object with messages")
        refuse_unknown(given, _INPUT_KEYS, " in input")
        if given.get("messages") is None:
            raise InvalidMessage("'input.messages' is missing")
        messages = check_messages(given["messages"], training=True)
        tools, parallel = tools_of(given.get("tools")), parallel_of(given)
        preferred, other = (_answer(content, names[name]) for name in (PREFERRED, NON_PREFERRED))
        if _said(preferred) == _said(other):
            raise InvalidMessage(f"{names[PREFERRED]} and {names[NON_PREFERRED]} are the same: there is nothing to prefer")
        older = any(names[name] == OLDER[name] for name in names)
        return Pair(line.number, example, messages, tools, parallel, preferred, other, older)


def _name(content: dict[str, Any], name: str) -> str:
    """Return the name under which a row has an answer.

    Raises:
        InvalidMessage: it has it under both, or under none.
    """
    older = OLDER[name]
    if content.get(older) is None:
        if content.get(name) is None:
            raise InvalidMessage(f"'{name}' is missing")
        return name
    if content.get(name) is not None:
        raise InvalidMessage(f"it has both {name} and {older}; the first replaces the second")
    return older


def _answer(content: dict[str, Any], name: str) -> Message:
    """Return the one assistant message of an answer.

    Raises:
        InvalidMessage: it is something else.
    """
    value = content[name]
    if not isinstance(value, list):
        raise InvalidMessage(f"{name} must be a list of exactly one assistant message")
    if len(value) != 1:
        raise InvalidMessage(f"{name} must hold exactly one assistant message, not {len(value)}")
    try:
        (message,) = check_messages(value, training=True)
    except InvalidMessage as error:
        raise InvalidMessage(f"{name}: {error.reason}", field=error.param(name)) from error
    if message["role"] != "assistant":
        raise InvalidMessage(f"{name} must be an assistant message, not one of role {message['role']!r}")
    if message.get("weight") == 0:
        raise InvalidMessage(f"{name} has weight 0: both answers are what is trained")
    return {key: value for key, value in message.items() if key != "weight"}


def _said(message: Message) -> object:
    """Return what tells two answers apart: their words and their calls, without the calls' ids."""
    (asked,) = modern([message])
    words = text_of(asked.get("content")) or asked.get("refusal") or ""
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in asked.get("tool_calls") or []]
    return words, calls


def conversations(row: Pair) -> "tuple[Conversation, Conversation]":
    """Return a row's two conversations, preferred first, in which nothing but the last message is trained."""
    context = [_untrained(message) for message in row.messages]
    preferred, other = [*context, row.preferred], [*context, row.non_preferred]
    return (preferred, row.tools, row.parallel_tool_calls), (other, row.tools, row.parallel_tool_calls)


def _untrained(message: Message) -> Message:
    return {**message, "weight": 0} if message["role"] == "assistant" else message

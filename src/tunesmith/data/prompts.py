"""The form of reinforcement files: a prompt that the model is to answer, and free columns that its grader may ask for."""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from tunesmith.core.chat import InvalidMessage, Message, Tool, check_messages
from tunesmith.data.jsonl import Line
from tunesmith.data.rows import free_keys, parallel_of, place_of, refuse_format, tools_of

#: Most rows that each of the two files may have.
N_MAX_TRAINING: Final = 50_000
N_MAX_VALIDATION: Final = 1_000
#: What is not the grader's.
RESERVED: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
_UNEXPECTED: Final = "Unexpected file format, expected chat messages and the columns that the grader asks for."


@dataclass(frozen=True, slots=True)
class PromptRow:
    """One checked example of a reinforcement file."""

    #: 1-based, as an editor counts.
    line: int
    #: 1-based among the lines that are not blank.
    example: int
    messages: list[Message]
    tools: list[Tool] | None = None
    parallel_tool_calls: bool | None = None
    #: Every other key of the line: what a grader's templates know as `item`.
    item: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def place(self) -> str:
        """What the row is called in errors."""
        return place_of(self.example, self.line)


class PromptForm:
    """Prompts: `messages` that end with the user's turn, `tools`, and any other keys."""

    name: ClassVar[str] = "reinforcement"
    messages: ClassVar[str] = "messages"

    def check_format(self, content: dict[str, Any], file_id: str) -> None:
        """Tell another method's format from a mistake, by the first row.

        A chat that ends with the assistant's answer is a supervised file's, unless it has columns of its own.

        Raises:
            InvalidRows: the file is of another format.
        """
        messages = content.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else None
        answered = isinstance(last, dict) and last.get("role") == "assistant"
        if "messages" not in content or (answered and not free_keys(content)):
            raise refuse_format(self.name, content, file_id, unexpected=_UNEXPECTED)

    def row(self, content: dict[str, Any], line: Line, example: int) -> PromptRow:
        """Return the row of a line's object.

        Raises:
            InvalidMessage: naming the first rule that it breaks.
        """
        if content.get("messages") is None:
            raise InvalidMessage("'messages' is missing")
        messages = check_messages(content["messages"], training=True)
        role = messages[-1]["role"]
        if role != "user":
            raise InvalidMessage(
                f"the last message must be of role 'user', for the model to answer, not {role!r}", number=len(messages)
            )
        tools, parallel = tools_of(content.get("tools")), parallel_of(content)
        _check_strict(tools)
        item = {key: value for key, value in content.items() if key not in RESERVED}
        return PromptRow(line.number, example, messages, tools, parallel, item)


def _check_strict(tools: list[Tool] | None) -> None:
    """Refuse tools whose calls, which are sampled, could not be kept to their schema.

    Raises:
        InvalidMessage: naming the tool.
    """
    if not any(tool["function"].get("strict") for tool in tools or ()):
        return
    from tunesmith.data.grammar import GrammarRefused, check_strict  # noqa: PLC0415 - a server that starts has no use for it

    try:
        check_strict(tools)
    except GrammarRefused as error:
        number = (error.tool or 0) + 1
        raise InvalidMessage(f"tool {number}: calls of a strict function cannot be kept to its schema: {error}") from error

"""Training rows from a JSONL stream, every rule of a method's form checked, in constant memory; and the supervised form.

Errors speak in OpenAI's words and count examples and messages from 1. `scan_rows` goes on past bad rows and collects what
is wrong with them; `read_rows` stops at the first. Rules that need a tokenizer are `survey.py`'s. The other forms
are `pairs.py` and `prompts.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Protocol, TypeVar

from tunesmith.core.chat import InvalidMessage, Message, Tool, check_functions, check_messages, check_tools
from tunesmith.data.jsonl import Line, NotJson, Stream, parse_object, read_lines

N_MIN_EXAMPLES: Final = 10
#: What OpenAI calls the files of each method.
FORMATS: Final = {
    "supervised": "fine-tune-chat",
    "dpo": "fine-tune-preference",
    "reinforcement": "fine-tune-reinforcement",
}
_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
_UNEXPECTED: Final = "Unexpected file format, expected either prompt/completion pairs or chat messages."
#: Keys that only rows of preferences have, by today's and by older names.
_PREFERENCES: Final = frozenset(
    {"preferred_output", "non_preferred_output", "preferred_completion", "non_preferred_completion"}
)


class Placed(Protocol):
    """What rows of all forms have."""

    @property
    def line(self) -> int:
        """The line's number."""
        ...

    @property
    def example(self) -> int:
        """The example's number."""
        ...

    @property
    def place(self) -> str:
        """What the row is called in errors."""
        ...


RowT_co = TypeVar("RowT_co", covariant=True)
RowT = TypeVar("RowT")


class Form(Protocol[RowT_co]):
    """How the rows of a method are written."""

    #: The method's name on the wire.
    name: ClassVar[str]
    #: Where a row has its messages.
    messages: ClassVar[str]

    def check_format(self, content: dict[str, Any], file_id: str) -> None:
        """Tell another method's format from a mistake, by the first row.

        Raises:
            InvalidRows: the file is of another format.
        """
        ...

    def row(self, content: dict[str, Any], line: Line, example: int) -> RowT_co:
        """Return the row of a line's object.

        Raises:
            InvalidMessage: naming the first rule that it breaks.
        """
        ...


class InvalidRows(ValueError):
    """A file has rows that cannot be trained on; `str()` is what is wrong, without the sentence around it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One checked example of a supervised file."""

    #: 1-based, as an editor counts.
    line: int
    #: 1-based among the lines that are not blank.
    example: int
    messages: list[Message]
    tools: list[Tool] | None = None
    parallel_tool_calls: bool | None = None

    @property
    def place(self) -> str:
        """What the row is called in errors: by example, and by line where blank lines set the two apart."""
        return place_of(self.example, self.line)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a row."""

    #: With the row's name before it.
    text: str
    #: 1-based, as an editor counts.
    line: int
    #: The way to it inside the row, such as `messages[1].content`; empty where it is the whole row.
    field: str = ""


@dataclass(slots=True)
class Problems:
    """What is wrong with a file: the first few in words, the rest as a number."""

    n_shown: int = 5
    n_total: int = 0
    found: list[Problem] = field(default_factory=list[Problem])

    def add(self, text: str, line: int, field: str = "") -> None:
        """Take one more."""
        self.n_total += 1
        if len(self.found) < self.n_shown:
            self.found.append(Problem(text, line, field))

    @property
    def texts(self) -> list[str]:
        """The first few in words."""
        return [problem.text for problem in self.found]

    def told(self) -> list[dict[str, Any]]:
        """Return the first few by name, in the order of the lines."""
        found = sorted(self.found, key=lambda problem: problem.line)
        return [{"line": each.line, "field": each.field or None, "message": each.text} for each in found]

    def __bool__(self) -> bool:
        return self.n_total > 0

    def __str__(self) -> str:
        more = self.n_total - len(self.found)
        return "; ".join(self.texts) + (f"; and {more:,} more" if more else "")


def place_of(example: int, line: int) -> str:
    """Return `Example 3`, or `Example 3 (line 5)` where the two differ."""
    return f"Example {example}" if example == line else f"Example {example} (line {line})"


def scan_rows(
    stream: Stream, *, form: Form[RowT], max_line_bytes: int, problems: Problems, file_id: str = ""
) -> Iterator[RowT]:
    """Yield the valid rows of a file and add the others to `problems`.

    `file_id` is named when the file is in another method's format.

    Raises:
        InvalidRows: the file as a whole is in another format.
    """
    for example, line in enumerate(read_lines(stream, max_line_bytes=max_line_bytes), start=1):
        try:
            content = parse_object(line, max_line_bytes=max_line_bytes)
        except NotJson as error:
            problems.add(f"Line {line.number} {error}", line.number)
            continue
        if example == 1:
            form.check_format(content, file_id)
        try:
            yield form.row(content, line, example)
        except InvalidMessage as error:
            text = f"{place_of(example, line.number)}{_where(error)} {error.reason}"
            problems.add(text, line.number, _field(error, form.messages))


def read_rows(stream: Stream, *, form: Form[RowT], max_line_bytes: int) -> Iterator[RowT]:
    """Yield the rows of a file that is thought to be valid.

    Raises:
        InvalidRows: a row is not.
    """
    problems = Problems(n_shown=1)
    for row in scan_rows(stream, form=form, max_line_bytes=max_line_bytes, problems=problems):
        if problems:
            break
        yield row
    if problems:
        raise InvalidRows(problems.texts[0])


def method_of(content: dict[str, Any]) -> str | None:
    """Return whose form a row seems to be written in, None where it is nobody's.

    Chat that ends with the user's turn and has keys of its own is a prompt with what a grader is to know; a row that has
    both outputs of a preference and no messages is one.
    """
    messages = content.get("messages")
    if messages is None:
        return "dpo" if content.keys() & _PREFERENCES else None
    last = messages[-1] if isinstance(messages, list) and messages else None
    asks = isinstance(last, dict) and last.get("role") == "user"
    return "reinforcement" if asks and free_keys(content) else "supervised"


def free_keys(content: dict[str, Any]) -> list[str]:
    """Return the keys that hold something and that chat does not know, in order."""
    return sorted(key for key in content.keys() - _KEYS if content[key] is not None)


def refuse_format(method: str, content: dict[str, Any], file_id: str, *, unexpected: str = _UNEXPECTED) -> InvalidRows:
    """Return the refusal of a file whose first row is not of the method's form, in the words for what it seems to be."""
    subject = f"Input file {file_id}" if file_id else "The file"
    other = method_of(content)
    if other is not None and other != method:
        return InvalidRows(
            f"Invalid file format. {subject} is in the {FORMATS[other]} format, but the specified fine-tuning job is "
            f"not using '{other}' as the training method (provided method={method}). "
        )
    if content.keys() == {"prompt", "completion"}:
        return InvalidRows(
            f"Invalid file format. {subject} holds prompt/completion pairs, the format of models that were retired. Put "
            "each pair into chat messages: a user message with the prompt, an assistant message with the completion."
        )
    return InvalidRows(unexpected)


def refuse_unknown(content: dict[str, Any], known: frozenset[str], where: str = "") -> None:
    """Refuse keys that hold something and are not known.

    Raises:
        InvalidMessage: naming them.
    """
    unknown = sorted(key for key in content.keys() - known if content[key] is not None)
    if unknown:
        raise InvalidMessage(f"unknown keys{where}: {', '.join(unknown)} (known: {', '.join(sorted(known))})")


class ChatForm:
    """The form of supervised files: a chat a row, whose assistant's words are trained."""

    name: ClassVar[str] = "supervised"
    messages: ClassVar[str] = "messages"

    def check_format(self, content: dict[str, Any], file_id: str) -> None:
        """Tell another method's format from a mistake, by the first row.

        Raises:
            InvalidRows: the file is of another format.
        """
        if "messages" not in content or method_of(content) == "reinforcement":
            raise refuse_format(self.name, content, file_id)

    def row(self, content: dict[str, Any], line: Line, example: int) -> Row:
        """Return the row of a line's object.

        Raises:
            InvalidMessage: naming the first rule that it breaks.
        """
        refuse_unknown(content, _KEYS)
        if "messages" not in content:
            raise InvalidMessage("'messages' is missing")
        messages = check_messages(content["messages"], training=True)
        tools, functions = content.get("tools"), content.get("functions")
        if tools is not None and functions is not None:
            raise InvalidMessage("it has both tools and functions; tools replace functions")
        checked = tools_of(tools, functions)
        parallel = parallel_of(content)
        if not any(message["role"] == "assistant" and message.get("weight") != 0 for message in messages):
            silent = not any(message["role"] == "assistant" for message in messages)
            reason = "it has no assistant message" if silent else "every assistant message has weight 0"
            raise InvalidMessage(f"trains on nothing: {reason}")
        return Row(line.number, example, messages, checked, parallel)


def parallel_of(content: dict[str, Any]) -> bool | None:
    """Return a row's `parallel_tool_calls`.

    Raises:
        InvalidMessage: it is no truth value.
    """
    parallel = content.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise InvalidMessage("parallel_tool_calls must be true or false")
    return parallel


def tools_of(tools: object, functions: object = None) -> list[Tool] | None:
    """Return a row's tools, None without any.

    Raises:
        InvalidMessage: naming the first tool that breaks a rule.
    """
    name = "tool" if functions is None else "function"
    try:
        if functions is not None:
            return check_functions(functions)
        return check_tools(tools) or None if tools is not None else None
    except InvalidMessage as error:
        if error.number is None:
            raise
        raise InvalidMessage(f"{name} {error.number}: {error.reason}", field=error.field) from error


def _where(error: InvalidMessage) -> str:
    return ":" if error.number is None else f", message {error.number}"


def _field(error: InvalidMessage, messages: str) -> str:
    return error.field if error.number is None else error.param(messages)

"""Training rows from a JSONL stream, every rule of the supervised format checked, in constant memory.

Errors speak in OpenAI's words and count examples and messages from 1. `scan_rows` goes on past bad rows and collects what
is wrong with them; `read_rows` stops at the first. Rules that need a tokenizer are `worker/validate.py`'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from tunesmith.core.chat import InvalidMessage, Message, Tool, check_functions, check_messages, check_tools
from tunesmith.data.jsonl import Line, NotJson, Stream, parse_object, read_lines

N_MIN_EXAMPLES: Final = 10
_KEYS: Final = frozenset({"messages", "tools", "parallel_tool_calls", "functions"})
_UNEXPECTED: Final = "Unexpected file format, expected either prompt/completion pairs or chat messages."


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


@dataclass(slots=True)
class Problems:
    """What is wrong with a file: the first few in words, the rest as a number."""

    n_shown: int = 5
    n_total: int = 0
    texts: list[str] = field(default_factory=list[str])

    def add(self, text: str) -> None:
        """Take one more."""
        self.n_total += 1
        if len(self.texts) < self.n_shown:
            self.texts.append(text)

    def __bool__(self) -> bool:
        return self.n_total > 0

    def __str__(self) -> str:
        more = self.n_total - len(self.texts)
        return "; ".join(self.texts) + (f"; and {more:,} more" if more else "")


def place_of(example: int, line: int) -> str:
    """Return `Example 3`, or `Example 3 (line 5)` where the two differ."""
    return f"Example {example}" if example == line else f"Example {example} (line {line})"


def scan_rows(stream: Stream, *, max_line_bytes: int, problems: Problems, file_id: str = "") -> Iterator[Row]:
    """Yield the valid rows of a supervised file and add the others to `problems`.

    `file_id` is named when the file is in another method's format.

    Raises:
        InvalidRows: the file as a whole is in another format.
    """
    for example, line in enumerate(read_lines(stream, max_line_bytes=max_line_bytes), start=1):
        try:
            content = parse_object(line, max_line_bytes=max_line_bytes)
        except NotJson as error:
            problems.add(f"Line {line.number} {error}")
            continue
        if example == 1:
            _check_format(content, file_id)
        try:
            yield _row(content, line, example)
        except InvalidMessage as error:
            problems.add(f"{place_of(example, line.number)}{_where(error)} {error.reason}")


def read_rows(stream: Stream, *, max_line_bytes: int) -> Iterator[Row]:
    """Yield the rows of a supervised file that is thought to be valid.

    Raises:
        InvalidRows: a row is not.
    """
    problems = Problems(n_shown=1)
    for row in scan_rows(stream, max_line_bytes=max_line_bytes, problems=problems):
        if problems:
            break
        yield row
    if problems:
        raise InvalidRows(problems.texts[0])


def _check_format(content: dict[str, Any], file_id: str) -> None:
    """Tell another method's format from a mistake, by the first row."""
    if "messages" in content:
        return
    subject = f"Input file {file_id}" if file_id else "The file"
    if "preferred_output" in content or "non_preferred_output" in content:
        raise InvalidRows(
            f"Invalid file format. {subject} is in the fine-tune-preference format, but the specified fine-tuning job is "
            "not using 'dpo' as the training method (provided method=supervised). "
        )
    if content.keys() == {"prompt", "completion"}:
        raise InvalidRows(
            f"Invalid file format. {subject} holds prompt/completion pairs, the format of models that were retired. Put "
            "each pair into chat messages: a user message with the prompt, an assistant message with the completion."
        )
    raise InvalidRows(_UNEXPECTED)


def _row(content: dict[str, Any], line: Line, example: int) -> Row:
    unknown = sorted(key for key in content.keys() - _KEYS if content[key] is not None)
    if unknown:
        known = ", ".join(sorted(_KEYS))
        raise InvalidMessage(f"unknown keys: {', '.join(unknown)} (known: {known})")
    if "messages" not in content:
        raise InvalidMessage("'messages' is missing")
    messages = check_messages(content["messages"], training=True)
    tools, functions = content.get("tools"), content.get("functions")
    if tools is not None and functions is not None:
        raise InvalidMessage("it has both tools and functions; tools replace functions")
    checked = _tools(tools, functions)
    parallel = content.get("parallel_tool_calls")
    if not isinstance(parallel, bool | None):
        raise InvalidMessage("parallel_tool_calls must be true or false")
    if not any(message["role"] == "assistant" and message.get("weight") != 0 for message in messages):
        silent = not any(message["role"] == "assistant" for message in messages)
        reason = "it has no assistant message" if silent else "every assistant message has weight 0"
        raise InvalidMessage(f"trains on nothing: {reason}")
    return Row(line.number, example, messages, checked, parallel)


def _tools(tools: object, functions: object) -> list[Tool] | None:
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

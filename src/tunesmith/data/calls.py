"""Tool calls as a model writes them, read while they are written: name first, then the arguments, piece by piece."""

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

CALL: Final = "<tool_call>"
CALLED: Final = "</tool_call>"

#: From here on there is no doubt that it is a call: the name is known, and an object of arguments has begun.
_HEAD: Final = re.compile(
    r'\s*\{\s*"name"\s*:\s*(?P<name>"(?:[^"\\\x00-\x1f]|\\.)+")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{\s*["}])'
)
_OPENS: Final = {"}": "{", "]": "["}


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a template writes calls: what stands between the opening mark, the name and the arguments (both JSON), and the
    closing mark, and what between two calls."""

    before_name: str = '{"name": '
    before_arguments: str = ', "arguments": '
    after_arguments: str = "}"
    between: str = ""


def form_of(text: str, name: str, arguments: str) -> CallForm:
    """Return the form of the calls in a rendered text, of two of a function with these arguments, or the usual one.

    A template that writes calls in another manner than `<tool_call>` and JSON has the usual one, as has one that tells the
    arguments before the name: nothing could be said of such a call before it is over.
    """
    first, _, others = text.partition(CALL)[2].partition(CALLED)
    before_name, found, behind = first.partition(json.dumps(name))
    before_arguments, found_too, after = behind.partition(arguments)
    between, mark, _ = others.partition(CALL)
    if not (found and found_too and _HEAD.match(first) and after.strip() == "}" and mark and not between.strip()):
        return CallForm()
    return CallForm(before_name, before_arguments, after, between)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model makes; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """A piece of an answer's call number `index`: the first has id and name, each more of the arguments."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


class CallReader:
    """Reads one call behind its opening mark; `rest` is what came after it once it is `over`."""

    def __init__(self, index: int, new_id: Callable[[], str]) -> None:
        self._index = index
        self._new_id = new_id
        #: What was read and has not been given out.
        self.rest = ""
        #: It is a call: its name is known.
        self.begun = False
        self.over = False
        self._value = _Value()

    def feed(self, text: str, *, last: bool) -> list[CallPart]:
        """Return what a piece of text adds. With `last` nothing follows.

        What is over without having begun is no call; `rest` then has all of it.
        """
        self.rest += text
        parts: list[CallPart] = []
        if not self.begun:
            parts += self._begin(last=last)
        if self.begun and not self.over:
            parts += self._go_on(last=last)
        return [part for part in parts if part.name is not None or part.arguments]

    def _begin(self, *, last: bool) -> list[CallPart]:
        head = _HEAD.match(self.rest)
        if head is not None:
            self.begun, self.rest = True, self.rest[head.end() :]
            return [CallPart(self._index, "", self._new_id(), json.loads(head["name"]))]
        body, mark, rest = self.rest.partition(CALLED)
        if not mark and not last:
            return []
        self.over = True
        call = _parse(body)
        if call is None:
            return []
        self.begun, self.rest = True, rest
        return [CallPart(self._index, "", self._new_id(), call[0]), CallPart(self._index, call[1])]

    def _go_on(self, *, last: bool) -> list[CallPart]:
        n_read = self._value.read(self.rest)
        said, self.rest = self.rest[:n_read], self.rest[n_read:]
        before, mark, rest = self.rest.partition(CALLED)
        self.over = bool(mark) or last
        if self._value.broken:
            # the model lost its way: all that it says up to the closing mark is what it said
            n_said = len(before) - (0 if self.over else n_begun(before, CALLED))
            said, self.rest = said + before[:n_said], rest if mark else before[n_said:]
        elif CALL in before:
            self.over, self.rest = True, self.rest[before.index(CALL) :]
        elif mark:
            self.rest = rest
        elif last:
            self.rest = before.lstrip().removeprefix("}")
        return [CallPart(self._index, said)]


class BareCall:
    """Tells whether an answer may be one JSON object that calls a function, as some templates, such as Llama's, write it."""

    def __init__(self, names: Collection[str]) -> None:
        self._heads = [
            f'{{{kind}"name":{json.dumps(name)},"{arguments}":{{'
            for name in names
            for kind in ("", '"type":"function",')
            for arguments in ("parameters", "arguments")
        ]
        self._names = frozenset(names)
        #: The arguments, once they have begun, and the character to which they were read.
        self._value: _Value | None = None
        self._read = 0

    def may_be(self, text: str) -> bool:
        """Say whether the whole text so far may become such a call."""
        if self._value is None:
            compact = "".join(text.split())
            if not any(map(compact.startswith, self._heads)):
                return any(head.startswith(compact) for head in self._heads)
            self._value, self._read = _Value(), text.index("{", text.index("{") + 1)
        self._read += self._value.read(text[self._read :])
        if self._value.broken:
            return False
        return not self._value.over or "".join(text[self._read :].split()) in ("", "}")

    def parsed(self, text: str) -> tuple[str, str] | None:
        """Return name and arguments of the call that a whole answer is, or None."""
        call = _parse(text) if self.may_be(text) else None
        return call if call is not None and call[0] in self._names else None


class _Value:
    """Follows one JSON object to its end, without more of JSON than that needs."""

    def __init__(self) -> None:
        self.over = False
        self.broken = False
        self._open: list[str] = []
        self._in_string = False
        self._escaped = False

    def read(self, text: str) -> int:
        """Return how many characters of the text belong to the object, as far as it has come."""
        if self.over or self.broken:
            return 0
        for place, character in enumerate(text):
            if self._in_string:
                self._in_text(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._open.append(character)
            elif character in "}]":
                self.broken = self._open.pop() != _OPENS[character]
                self.over = not self._open
            elif character == "<":
                self.broken = True
            if self.broken:
                return place
            if self.over:
                return place + 1
        return len(text)

    def _in_text(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
        else:
            self.broken = character < " "


def n_begun(text: str, mark: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def _parse(body: str) -> tuple[str, str] | None:
    """Return name and arguments of a call as the model wrote it, or None."""
    try:
        said: Any = json.loads(body)
        name = said["name"]
        arguments = said.get("arguments", said.get("parameters", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or not name:
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

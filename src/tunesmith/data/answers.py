"""From sampled tokens to the parts of an answer: whole characters, stop strings held back, tool calls told apart.

One `Assembler` a sample; nothing here waits or knows of HTTP.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tunesmith.core.ids import Ids

if TYPE_CHECKING:
    from tunesmith.data.render import TextStream

TOOL_CALL: Final = ("<tool_call>", "</tool_call>")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model makes; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in sample `index`: text, or a whole tool call, or on the last one why it ended."""

    index: int
    text: str = ""
    tool_call: ToolCall | None = None
    finish_reason: str | None = None


class Assembler:
    """Turns one sample's tokens into deltas."""

    def __init__(
        self, index: int, text: "TextStream", stops: Sequence[str], *, with_tools: bool, ids: Ids, one_call: bool = False
    ) -> None:
        self._index = index
        self._text = text
        self._stops = tuple(stops)
        self._with_tools = with_tools
        self._one_call = one_call
        self._ids = ids
        self._held = ""
        self._n_calls = 0
        self._in_call = False
        #: White space between text and a call: layout, unless the call turns out to be none.
        self._layout = ""
        self._after_call = False
        self.finished = False
        self.n_tokens = 0

    def feed(self, token: int, finish: str | None, *, is_stop: bool) -> list[Delta]:
        """Return what a token adds; after a delta with `finish_reason` the sample is over."""
        if self.finished:
            return []
        self.n_tokens += 1
        if not is_stop:
            self._held += self._text.step(token)
        deltas = self._release(last=finish is not None)
        if finish is not None and not self.finished:
            deltas.append(self._end(finish))
        return deltas

    def _release(self, *, last: bool) -> list[Delta]:
        deltas: list[Delta] = []
        while not self.finished:
            before = len(self._held)
            deltas += self._release_call(last=last) if self._in_call else self._release_text(last=last)
            if len(self._held) == before or not self._held:
                break
        return deltas

    def _release_text(self, *, last: bool) -> list[Delta]:
        """Give out the text up to a stop string, to a tool call, or to what may yet become one of them."""
        marks = (*self._stops, *((TOOL_CALL[0],) if self._with_tools else ()))
        places = [(place, mark) for mark in marks if (place := self._held.find(mark)) >= 0]
        if places:
            place, mark = min(places)
            text, self._held = self._held[:place], self._held[place + len(mark) :]
            if mark in self._stops:
                self._held = ""
                return [*self._said(text), self._end("stop")]
            self._in_call = True
            said = text.rstrip()
            self._layout = text[len(said) :]
            return self._said(said)
        n_kept = 0 if last else max((_n_begun(self._held, mark) for mark in marks), default=0)
        text = self._held[: len(self._held) - n_kept]
        if self._with_tools and not last:
            text = text.rstrip()
        self._held = self._held[len(text) :]
        return self._said(text)

    def _release_call(self, *, last: bool) -> list[Delta]:
        """Give out a tool call once it is whole; what is no call after all is text."""
        body, mark, rest = self._held.partition(TOOL_CALL[1])
        if not mark and not last:
            return []
        self._in_call, self._held = False, rest
        call = _parse(body)
        if call is None:
            return self._said(self._layout + TOOL_CALL[0] + body + mark)
        self._n_calls += 1
        self._after_call = True
        made = Delta(self._index, tool_call=ToolCall(self._ids.tool_call(), *call))
        return [made, self._end("stop")] if self._one_call else [made]

    def _said(self, text: str) -> list[Delta]:
        if self._after_call:
            text = text.lstrip()
            self._after_call = not text
        return [Delta(self._index, text=text)] if text else []

    def _end(self, finish: str) -> Delta:
        self.finished = True
        reason = "tool_calls" if self._n_calls and finish == "stop" else finish
        return Delta(self._index, finish_reason=reason)


def _n_begun(text: str, mark: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the mark."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def _parse(body: str) -> tuple[str, str] | None:
    """Return name and arguments of a call as the model wrote it, or None."""
    try:
        said: Any = json.loads(body)
        name, arguments = said["name"], said.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    if not isinstance(name, str):
        return None
    return name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)

"""From sampled tokens to the parts of an answer: whole characters, stop strings held back, tool calls told apart.

One `Assembler` a sample, and one `Said` for what its deltas make together; nothing here waits or knows of HTTP.
"""

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tunesmith.core.ids import Ids
from tunesmith.data.calls import CALL, CALLED, BareCall, CallPart, CallReader, ToolCall, n_begun
from tunesmith.data.thinking import THINK, THOUGHT, Thought
from tunesmith.data.vocabulary import TokenLogprob

if TYPE_CHECKING:
    from tunesmith.data.render import TextStream


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in sample `index`: text, or a piece of a tool call, or on the last one why it ended."""

    index: int
    text: str = ""
    #: What was thought before.
    reasoning: str = ""
    refusal: str = ""
    tool_call: CallPart | None = None
    finish_reason: str | None = None
    #: The tokens of the text, where they were fed with their log-probabilities.
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(slots=True)
class Said:
    """One sample's deltas put together."""

    texts: list[str] = field(default_factory=list[str])
    reasoning: list[str] = field(default_factory=list[str])
    refusals: list[str] = field(default_factory=list[str])
    tool_calls: list[ToolCall] = field(default_factory=list[ToolCall])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    finish_reason: str | None = None

    def add(self, delta: Delta) -> None:
        """Take in what is new."""
        self.texts.append(delta.text)
        self.logprobs += delta.logprobs
        self.reasoning.append(delta.reasoning)
        self.refusals.append(delta.refusal)
        self.finish_reason = delta.finish_reason or self.finish_reason
        part = delta.tool_call
        if part is None:
            return
        if part.index == len(self.tool_calls):
            self.tool_calls.append(ToolCall(part.id or "", part.name or "", part.arguments))
        else:
            call = self.tool_calls[part.index]
            self.tool_calls[part.index] = ToolCall(call.id, call.name, call.arguments + part.arguments)

    @property
    def text(self) -> str:
        """What was said beside the calls."""
        return "".join(self.texts)


class Assembler:
    """Turns one sample's tokens into deltas."""

    def __init__(  # noqa: PLR0913 - each is a way in which answers differ
        self,
        index: int,
        text: "TextStream",
        stops: Sequence[str],
        *,
        with_tools: bool,
        ids: Ids,
        one_call: bool = False,
        named: bool = False,
        thought: Thought = Thought.NO,
        bare: Collection[str] = (),
    ) -> None:
        """`one_call`: the first call ends the answer; `named`: so it does, and with `stop`, as the caller knows of it.

        `bare`: functions that a whole answer calls which is such a JSON object, without a mark; it is held back for so long
        as it may be one.
        """
        self._index = index
        self._text = text
        self._stops = tuple(stops)
        self._with_tools = with_tools
        self._one_call = one_call or named
        self._named = named
        self._thought = thought
        self._has_thought = False
        self._bare = BareCall(bare) if bare else None
        self._ids = ids
        self._held = ""
        self._n_calls = 0
        self._call: CallReader | None = None
        #: White space between text and a call: layout, unless the call turns out to be none.
        self._layout = ""
        #: Behind a call or a thought: white space that comes now is layout.
        self._after = False
        #: Characters fed; the text held back is the last of them.
        self._n_fed = 0
        #: Tokens whose text is not given out yet: the characters from and to which they stand, several on one unfinished.
        self._untold: deque[tuple[int, int, list[TokenLogprob]]] = deque()
        self._unfinished: list[TokenLogprob] = []
        self.finished = False
        self.n_tokens = 0
        #: Of them, those of the thought and its marks.
        self.n_reasoning = 0

    def feed(self, token: int, finish: str | None, *, is_stop: bool, scored: TokenLogprob | None = None) -> list[Delta]:
        """Return what a token adds; after a delta with `finish_reason` the sample is over.

        `scored` is told with the text that the token has a part in, and not at all where none of it is given out; one that
        has no text is told with the next that has, or at the end.
        """
        if self.finished:
            return []
        self.n_tokens += 1
        self.n_reasoning += self._thought is not Thought.NO
        text = "" if is_stop else self._text.step(token)
        self._note(text, scored)
        self._held += text
        deltas = self._release(last=finish is not None)
        if finish is not None and not self.finished:
            deltas.append(self._end(finish))
        return deltas

    def _note(self, text: str, scored: TokenLogprob | None) -> None:
        if scored is not None:
            self._unfinished.append(replace(scored, start=self._n_fed))
        if text and self._unfinished:
            self._untold.append((self._n_fed, self._n_fed + len(text), self._unfinished))
            self._unfinished = []
        self._n_fed += len(text)

    def _release(self, *, last: bool) -> list[Delta]:
        deltas = [] if self._thought is Thought.NO else self._release_thought(last=last)
        if self._bare is not None and self._thought is Thought.NO:
            deltas += self._release_bare(self._bare, last=last)
        while not self.finished and self._thought is Thought.NO and self._bare is None:
            before = len(self._held), self._call
            deltas += self._release_text(last=last) if self._call is None else self._release_call(self._call, last=last)
            if (len(self._held), self._call) == before or not (self._held or self._call):
                break
        return deltas

    def _release_thought(self, *, last: bool) -> list[Delta]:
        """Give out what is thought, up to its end or to what may yet become it."""
        if self._thought is Thought.MAYBE:
            begun = self._held.lstrip()
            if not begun.startswith(THINK):
                if last or not THINK.startswith(begun):
                    self._thought, self.n_reasoning = Thought.NO, 0
                return []
            self._thought, self._held = Thought.WITHIN, begun.removeprefix(THINK)
        text, mark, rest = self._held.partition(THOUGHT)
        if not (mark or last):
            text = text[: len(text) - n_begun(text, THOUGHT)].rstrip()
        self._held = rest if mark else self._held[len(text) :]
        if mark or last:
            self._thought, self._after, text = Thought.NO, True, text.rstrip()
        if not self._has_thought:
            text = text.lstrip()
        self._has_thought = self._has_thought or bool(text)
        return [Delta(self._index, reasoning=text)] if text else []

    def _release_bare(self, bare: BareCall, *, last: bool) -> list[Delta]:
        """Hold an answer back that may be a call without a mark; give the call out at the end."""
        if not last and bare.may_be(self._held):
            return []
        self._bare = None
        stopped = any(stop in self._held for stop in self._stops)
        call = None if stopped else bare.parsed(self._held)
        if call is None:
            return []
        self._held, self._n_calls = "", 1
        begun = CallPart(0, "", self._ids.tool_call(), call[0])
        return [Delta(self._index, tool_call=part) for part in (begun, CallPart(0, call[1]))]

    def _release_text(self, *, last: bool) -> list[Delta]:
        """Give out the text up to a stop string, to a tool call, or to what may yet become one of them."""
        start = self._n_fed - len(self._held)
        marks = (*self._stops, *((CALL,) if self._with_tools else ()))
        places = [(place, mark) for mark in marks if (place := self._held.find(mark)) >= 0]
        if places:
            place, mark = min(places)
            text, self._held = self._held[:place], self._held[place + len(mark) :]
            if mark in self._stops:
                self._held = ""
                return [*self._said(text, start), self._end("stop")]
            self._call = CallReader(self._n_calls, self._ids.tool_call)
            said = text.rstrip()
            self._layout = text[len(said) :]
            return self._said(said, start)
        n_kept = 0 if last else max((n_begun(self._held, mark) for mark in marks), default=0)
        text = self._held[: len(self._held) - n_kept]
        if self._with_tools and not last:
            text = text.rstrip()
        self._held = self._held[len(text) :]
        return self._said(text, start)

    def _release_call(self, call: CallReader, *, last: bool) -> list[Delta]:
        """Give out what has come of a tool call; what is no call after all is text."""
        text, self._held = self._held, ""
        deltas = [Delta(self._index, tool_call=part) for part in call.feed(text, last=last)]
        if not call.over:
            return deltas
        self._call, self._held = None, call.rest
        if not call.begun:
            body, mark, self._held = call.rest.partition(CALLED)
            text = self._layout + CALL + body + mark
            return self._said(text, self._n_fed - len(self._held) - len(text))
        self._n_calls += 1
        self._after = True
        if self._one_call:
            self._held = ""
            return deltas if last else [*deltas, self._end("stop")]
        return deltas

    def _said(self, text: str, start: int) -> list[Delta]:
        end = start + len(text)
        if self._after:
            text = text.lstrip()
            self._after = not text
        return [Delta(self._index, text=text, logprobs=self._told(end - len(text), end))] if text else []

    def _told(self, start: int, end: int) -> tuple[TokenLogprob, ...]:
        """Take out the tokens of the text between two characters, and those before it that were never given out."""
        told: list[TokenLogprob] = []
        while self._untold and self._untold[0][0] < end:
            _, token_end, tokens = self._untold.popleft()
            if token_end > start:
                told += tokens
        return tuple(told)

    def _end(self, finish: str) -> Delta:
        self.finished = True
        reason = "tool_calls" if self._n_calls and finish == "stop" and not self._named else finish
        return Delta(self._index, finish_reason=reason, logprobs=() if self._n_calls else tuple(self._unfinished))

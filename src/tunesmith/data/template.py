"""A base model's chat template as a program: compiled once in a sandbox, rendered with the spans of its generation blocks.

The environment behaves like the one that `transformers` renders chat templates in, so that a template gives the same text
here and there; nothing of `transformers` is imported.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from tunesmith.core.clock import Clock

Message = Mapping[str, Any]
Span = tuple[int, int]

_TRACK: Final = "_generation_track"
_GENERATION: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
#: What a template can raise on a conversation it was not written for: its own refusals, and Python's on missing parts.
_REFUSALS: Final = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class TemplateRefused(ValueError):
    """The template raised on this conversation; the message is the template's own, or says what it tripped over."""


class BrokenTemplate(ValueError):
    """The text is not a Jinja template; the message says where it breaks."""


class _Track:
    """What one rendering has put out so far, and which pieces of it came from a generation block."""

    def __init__(self) -> None:
        self.length = 0
        self.blocks: list[tuple[int, str]] = []


class _GenerationBlocks(Extension):
    """The `{% generation %} … {% endgeneration %}` tag: what stands inside is what the assistant said."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares the attribute so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_record", [nodes.ContextReference()])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _record(self, context: Context, caller: Macro) -> str:
        text = str(caller())
        track = context.resolve(_TRACK)
        if isinstance(track, _Track):
            track.blocks.append((track.length, text))
        return text


class _PlainNamespace(Namespace):
    """Jinja's `namespace` without underscore names, through which a template could reach the interpreter."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        for name in dict(*args[1:], **kwargs):
            _check_name(name)
        Namespace.__init__(*args, **kwargs)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


class _PlainDict:
    """The `dict` a template sees: it makes mappings and offers nothing else of the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"A chat template cannot keep {name!r} on a namespace.")


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(clock: Clock, form: str) -> str:
    return datetime.fromtimestamp(clock.now()).strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


class ChatTemplate:
    """One compiled template with the variables every rendering gets (`bos_token`, `eos_token`, …).

    Safe to render from several threads.
    """

    def __init__(self, source: str, variables: Mapping[str, str], clock: Clock) -> None:
        """Compile `source`.

        Raises:
            BrokenTemplate: it is not a Jinja template.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        given: dict[str, Any] = {
            "raise_exception": _raise_exception,
            "strftime_now": partial(_strftime_now, clock),
            "dict": _PlainDict(),
            "namespace": _PlainNamespace,
        }
        environment.globals.update(given)
        try:
            self._template = environment.from_string(source)
            constants = environment.parse(source).find_all(nodes.Const)
        except jinja2.TemplateSyntaxError as error:
            raise BrokenTemplate(f"The chat template does not parse: {error.message} (line {error.lineno}).") from error
        self._constants = frozenset(node.value for node in constants if isinstance(node.value, str))
        self._variables = dict(variables)
        self.source = source
        #: True where the template marks what the assistant said with `{% generation %}`.
        self.marks_generation = _GENERATION.search(source) is not None

    def compares_with(self, word: str) -> bool:
        """Say whether `word` is one of the template's string constants, as in `message.role == 'developer'`."""
        return word in self._constants

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        *,
        generation_prompt: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """Render a conversation; `generation_prompt` opens the assistant's next turn.

        Raises:
            TemplateRefused: the template does not take this conversation.
        """
        return self._render(messages, tools, generation_prompt, {**(extra or {}), _TRACK: None})

    def render_with_spans(
        self, messages: Sequence[Message], tools: Sequence[Message] | None = None, *, extra: Mapping[str, Any] | None = None
    ) -> tuple[str, list[Span] | None]:
        """Render a conversation and return the characters that generation blocks wrote, in order.

        The spans are None where they cannot be told: a block inside a macro or a captured `set` does not know its place.

        Raises:
            TemplateRefused: the template does not take this conversation.
        """
        track = _Track()
        text = self._render(messages, tools, False, {**(extra or {}), _TRACK: track})
        spans = [(start, start + len(block)) for start, block in track.blocks]
        if any(text[start:end] != block for (start, end), (_, block) in zip(spans, track.blocks, strict=True)):
            return text, None
        return text, [(start, end) for start, end in spans if start < end]

    def _render(
        self, messages: Sequence[Message], tools: Sequence[Message] | None, generation_prompt: bool, extra: dict[str, Any]
    ) -> str:
        variables = {
            **self._variables,
            **extra,
            "messages": list(messages),
            "tools": None if tools is None else list(tools),
            "documents": None,
            "add_generation_prompt": generation_prompt,
        }
        track = extra[_TRACK]
        pieces: list[str] = []
        try:
            for piece in self._template.generate(variables):
                pieces.append(piece)
                if track is not None:
                    track.length += len(piece)
        except _REFUSALS as error:
            raise TemplateRefused(str(error) or type(error).__name__) from error
        return "".join(pieces)

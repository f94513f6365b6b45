"""Answers in a form: grammars that say after every token which ones may follow, for JSON of a schema and for tool calls.

The grammar is llguidance's; what it does not know of JSON Schema is refused, never passed over. `answer_grammar` is the one
rule of what binds an answer, for chat and for the rollouts of a training.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from llguidance import LLMatcher

from tunesmith.core.chat import Tool
from tunesmith.core.tool_choice import AUTO, ToolChoice
from tunesmith.data.calls import CALL, CALLED
from tunesmith.data.thinking import THINK, THOUGHT, Thought

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

    from tunesmith.data.render import Renderer

_N_SHOWN: Final = 300
#: One form of layout, so that a small model cannot go on with white space for ever.
_LAYOUT: Final["JsonCompileOptions"] = {
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_flexible": False,
    "coerce_one_of": True,
    "lenient": False,
}
_TEXT: Final = "/(?s:.+)/"
_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
#: Of a function that has none: it takes nothing.
_NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}, "additionalProperties": False}


class GrammarRefused(ValueError):
    """The schema has what cannot be kept to, or is none; `tool` is the place of the tool whose schema it is."""

    def __init__(self, reason: str, tool: int | None = None) -> None:
        super().__init__(reason)
        self.tool = tool


def grammar_of(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON values that a schema allows.

    Raises:
        GrammarRefused: it is no JSON schema, or has what cannot be kept to.
    """
    try:
        return _grammar_of(json.dumps(schema))
    except (ValueError, RecursionError) as error:
        raise GrammarRefused(f"{error}") from error


def check_strict(tools: Sequence[Tool] | None) -> None:
    """See to it that calls of the `strict` functions can be kept to their schemas.

    Raises:
        GrammarRefused: those of one cannot.
    """
    for place, tool in enumerate(tools or ()):
        if tool["function"].get("strict"):
            _arguments(0, place, _parameters(tool["function"]))


@lru_cache(maxsize=256)
def _grammar_of(schema: str) -> str:
    grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_LAYOUT)
    _check(grammar)
    return grammar


@lru_cache(maxsize=256)
def _grammar_from(lark: str) -> str:
    grammar = LLMatcher.grammar_from_lark(lark)
    _check(grammar)
    return grammar


def _check(grammar: str) -> None:
    if wrong := LLMatcher.validate_grammar(grammar):
        raise GrammarRefused(" ".join(wrong.split())[:_N_SHOWN].rstrip("."))


def answer_grammar(
    renderer: "Renderer",
    tools: Sequence[Tool] | None = None,
    choice: ToolChoice = AUTO,
    *,
    one_call: bool = False,
    schema: Mapping[str, Any] | None = None,
    thought: Thought = Thought.NO,
) -> str | None:
    """Return what binds an answer, None where nothing does.

    Calls that must be made keep to their functions' schemas; of those that may be made, the ones of `strict` functions do,
    and all are of functions that the choice allows. An answer that has a schema is either JSON of it or calls alone. What
    the base thinks before is free.

    Raises:
        GrammarRefused: a schema cannot be kept to.
    """
    callable_ = [
        (place, tool["function"]) for place, tool in enumerate(tools or ()) if choice.allows(tool["function"]["name"])
    ]
    must = choice.mode == "required"
    bound = must or choice.names is not None or any(function.get("strict") for _, function in callable_)
    if not (callable_ and bound) and schema is None:
        return None
    if schema is not None:
        alone = grammar_of(schema)
        if not callable_ and thought is Thought.NO:
            return alone
    rules = [*_thought(renderer, thought), "start: thought said", f"TEXT: {_TEXT}"]
    for number, (place, function) in enumerate(callable_):
        kept = must or function.get("strict")
        rules.append(_arguments(number, place, _parameters(function) if kept else _ANY_OBJECT))
    if callable_:
        rules += _call(renderer, [function["name"] for _, function in callable_])
        between = f"{_literal(renderer.call_form.between)} " if renderer.call_form.between else ""
        rules.append("calls: call" if one_call or choice.named else f"calls: call ({between}call)*")
    if must:
        rules.append("said: calls")
    elif schema is not None:
        rules += [f"said: {'calls | ' if callable_ else ''}answer", f"answer: {_json(schema)}"]
    else:
        rules += _among_text(renderer, one_call=one_call)
    return _grammar_from("\n".join(rules))


def _thought(renderer: "Renderer", thought: Thought) -> list[str]:
    """Return the rules of what the base thinks before it speaks."""
    if thought is Thought.NO:
        return ['thought: ""']
    ends = ["closed", *([f"TEXT? {_mark(renderer, THOUGHT)}"] if renderer.token_id(THOUGHT) is not None else [])]
    inside = f"({' | '.join(ends)}) " + r'("\n" | "\n\n")?'
    return [
        f"thought: {inside}" if thought is Thought.WITHIN else f"thought: ({_mark(renderer, THINK)} {inside})?",
        f"closed[lazy]: /(?s:.*){THOUGHT.replace('/', chr(92) + '/')}/",
    ]


def _parameters(function: Mapping[str, Any]) -> Mapping[str, Any]:
    return function.get("parameters") or _NO_PARAMETERS


def _arguments(number: int, place: int, schema: Mapping[str, Any]) -> str:
    try:
        grammar_of(schema)
    except GrammarRefused as error:
        raise GrammarRefused(str(error), place) from error
    return f"arguments{number}: {_json(schema)}"


def _call(renderer: "Renderer", names: Sequence[str]) -> list[str]:
    """Return the rules of one call: its body, and the whole with its marks."""
    form = renderer.call_form
    bodies = [
        f"{_literal(form.before_name + json.dumps(name) + form.before_arguments)} arguments{number}"
        for number, name in enumerate(names)
    ]
    end = _literal(form.after_arguments)
    return [
        f"body: ({' | '.join(bodies)}) {end} {_mark(renderer, CALLED)}",
        f"call: {_mark(renderer, CALL)} body",
    ]


def _among_text(renderer: "Renderer", *, one_call: bool) -> list[str]:
    """Return the rules of free text with calls in it: once the mark is there, in one token or in letters, a call follows."""
    whole = renderer.token_id(CALL) is not None
    return [
        f"said: {'item | rest' if one_call else 'item* rest'}",
        f"item: {'text call | ' if whole else ''}opened body",
        f"opened[lazy]: /(?s:.*){CALL}/",
        *(["text: TEXT?"] if whole else []),
        "rest: TEXT?",
    ]


def _mark(renderer: "Renderer", mark: str) -> str:
    """Return a mark as the tokenizer has it: one token, which no letters stand for, or its letters."""
    token = renderer.token_id(mark)
    return _literal(mark) if token is None else f"<[{token}]>"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': _LAYOUT})}"

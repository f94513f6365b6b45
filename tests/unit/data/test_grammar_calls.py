"""Grammars of answers with tool calls: text is free, and once a call begins nothing but a call can be written."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from llguidance import LLMatcher
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from tiny import TEMPLATE, build
from tunesmith.core.ids import Ids
from tunesmith.core.tool_choice import ToolChoice
from tunesmith.data.answers import Assembler, Said
from tunesmith.data.calls import CALL, CALLED, CallForm
from tunesmith.data.grammar import GrammarRefused, answer_grammar, check_strict
from tunesmith.data.render import Renderer
from tunesmith.sampler.grammar import Grammars

WITH_CALLS = TEMPLATE.replace("<|im_end|>", "CALLS<|im_end|>", 1)
ON_LINES = WITH_CALLS.replace(
    "CALLS",
    "{% for call in message.tool_calls or [] %}{{ '\\n' }}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}",
)
OTHERWISE = WITH_CALLS.replace(
    "CALLS",
    "{% for call in message.tool_calls or [] %}[{{ call.function.name }}({{ call.function.arguments | tojson }})]"
    "{% endfor %}",
)
BACKWARDS = WITH_CALLS.replace(
    "CALLS",
    "{% for call in message.tool_calls or [] %}<tool_call>"
    '{"arguments": {{ call.function.arguments | tojson }}, "name": "{{ call.function.name }}"}'
    "</tool_call>{% endfor %}",
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}, "at": {"enum": ["x", "</tool_call>"]}},
    "required": ["n", "at"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": True}},
    {"type": "function", "function": {"name": "look_up"}},
]


def base(folder: Path, *, marks: bool, template: str = ON_LINES) -> Renderer:
    build(folder, template=template, tokens=(CALL, CALLED) if marks else ())
    return Renderer.load(folder)


@pytest.fixture(scope="module", params=[False, True], ids=["letters", "marks"])
def renderer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("base")
    made = base(folder, marks=request.param)
    made.folder = folder  # type: ignore[attr-defined]
    return made


def ids(renderer: Renderer, text: str, *, letters: bool = False) -> list[int]:
    tokenizer = renderer._tokenizer
    if letters:
        return [token for letter in text for token in tokenizer.encode(letter, add_special_tokens=False).ids]
    return tokenizer.encode(text, add_special_tokens=False).ids


def matcher(renderer: Renderer, grammar: str) -> LLMatcher:
    folder: Path = renderer.folder  # type: ignore[attr-defined]
    return Grammars(folder / "tokenizer.json", renderer.vocab_size).matcher(grammar, renderer.stop_ids)


def allowed(following: LLMatcher, renderer: Renderer) -> list[int]:
    bits = allocate_token_bitmask(1, renderer.vocab_size)
    fill_next_token_bitmask(following, bits)
    return [token for token in range(renderer.vocab_size) if bits[0][token // 32] >> (token % 32) & 1]


def drawn(renderer: Renderer, grammar: str, begun: list[int], seed: int) -> Said:
    """Go on at random from what has been said, and return the answer."""
    following, chance = matcher(renderer, grammar), random.Random(seed)
    assert following.try_consume_tokens(begun) == len(begun), following.get_error()
    tokens = list(begun)
    while not following.is_stopped():
        choices = allowed(following, renderer)
        ends = [token for token in choices if token in renderer.stop_ids]
        if ends and (len(tokens) > len(begun) + 20 or len(choices) > 50):
            break
        tokens.append(chance.choice([token for token in choices if token not in ends] or ends))
        assert following.consume_token(tokens[-1])
    stream = renderer.stream(skip_special_tokens=False)
    reader, said = Assembler(0, stream, (), with_tools=True, ids=Ids(chance)), Said()
    for token in tokens:
        for delta in reader.feed(token, None, is_stop=False):
            said.add(delta)
    for delta in reader.feed(min(renderer.stop_ids), "stop", is_stop=True):
        said.add(delta)
    return said


@pytest.mark.parametrize("letters", [False, True])
@pytest.mark.parametrize("one_call", [False, True])
def test_once_a_call_has_begun_it_is_one(renderer: Renderer, letters: bool, one_call: bool) -> None:
    grammar = answer_grammar(renderer, TOOLS, one_call=one_call)
    assert grammar is not None
    names: set[str] = set()
    for seed in range(12):
        begun = ids(renderer, "Let me <look>:\n ") + ids(renderer, CALL, letters=letters)
        said = drawn(renderer, grammar, begun, seed)
        call = said.tool_calls[0]
        jsonschema.validate(json.loads(call.arguments), SCHEMA if call.name == "look" else {"type": "object"})
        names.add(call.name)
        assert said.text.startswith("Let me <look>:")
        assert said.finish_reason == "tool_calls"
    assert names == {"look", "look_up"}


def test_text_is_free(renderer: Renderer) -> None:
    grammar = answer_grammar(renderer, TOOLS)
    assert grammar is not None
    for text in ("", "Hello <tool_cal", "</tool_call> and <tools>, ü\n", '{"name": "look"}'):
        following = matcher(renderer, grammar)
        tokens = ids(renderer, text, letters=True)
        assert following.try_consume_tokens(tokens) == len(tokens)
        assert following.is_accepting()


def test_what_binds_nothing_is_no_grammar(renderer: Renderer) -> None:
    assert answer_grammar(renderer) is None
    assert answer_grammar(renderer, TOOLS[1:]) is None
    assert answer_grammar(renderer, TOOLS, ToolChoice("none")) is None
    assert answer_grammar(renderer, TOOLS[1:], ToolChoice("auto", ("look_up",))) is not None


@pytest.mark.parametrize(("choice", "names"), [("required", {"look", "look_up"}), ("named", {"look_up"})])
def test_a_function_without_parameters_takes_none_where_it_must_be_called(
    renderer: Renderer, choice: str, names: set[str]
) -> None:
    asked = ToolChoice("required", ("look_up",), named=True) if choice == "named" else ToolChoice("required")
    grammar = answer_grammar(renderer, TOOLS, asked, one_call=True)
    assert grammar is not None
    said = [drawn(renderer, grammar, [], seed) for seed in range(12)]
    assert {each.tool_calls[0].name for each in said} == names
    assert {len(each.tool_calls) for each in said} == {1}
    assert {each.tool_calls[0].arguments for each in said if each.tool_calls[0].name == "look_up"} == {"{}"}
    assert {each.text for each in said} == {""}


def test_an_answer_is_of_its_form_or_calls(renderer: Renderer) -> None:
    form = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    grammar = answer_grammar(renderer, TOOLS, schema=form)
    assert grammar is not None
    kinds: set[bool] = set()
    for seed in range(12):
        said = drawn(renderer, grammar, [], seed)
        kinds.add(bool(said.tool_calls))
        assert said.tool_calls or json.loads(said.text).keys() == {"ok"}
        assert not (said.tool_calls and said.text)
    assert kinds == {False, True}


@pytest.mark.parametrize(
    ("template", "form"),
    [
        (ON_LINES, CallForm('\n{"name": ', ', "arguments": ', "}\n", "\n")),
        (OTHERWISE, CallForm()),
        (BACKWARDS, CallForm()),
        (TEMPLATE, CallForm()),
    ],
)
def test_calls_are_bound_to_the_templates_own_form(tmp_path: Path, template: str, form: CallForm) -> None:
    assert base(tmp_path, marks=False, template=template).call_form == form


def test_a_schema_that_cannot_be_kept_to_names_its_tool() -> None:
    with pytest.raises(GrammarRefused, match="not") as refused:
        check_strict([*TOOLS, {"type": "function", "function": {"name": "f", "strict": True, "parameters": {"not": {}}}}])
    assert refused.value.tool == 2
    check_strict([{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}])

"""Golden tests: token ids and masks equal those of `transformers`, for templates in the manner of four families."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

from tunesmith.core.chat import check_messages
from tunesmith.data.render import Example, Renderer, RenderError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The wéather <now>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Zürich"}'}}
CALLED = {**CALL, "function": {"name": "weather", "arguments": {"city": "Zürich"}}}
SPECIAL_OF_LLAMA = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>")
SINGLE = [{"role": "user", "content": "What is the weather?"}, {"role": "assistant", "content": "It is sunny."}]
MULTI = [
    {"role": "system", "content": "Answer the customer."},
    {"role": "user", "content": "Where is my parcel? 📦 ¿Dónde?"},
    {"role": "assistant", "content": "In Paris. \n Soon → here 🎉"},
    {"role": "user", "content": "  Thanks  "},
    {"role": "assistant", "content": "You are welcome!"},
]
TOOL_TURNS = [
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": '{"sun": true}'},
    {"role": "assistant", "content": "Sunny."},
]


def oracle(family: Any, messages: list[dict[str, Any]], tools: Any = None) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return ids and mask as `transformers` has them; calls get their arguments as mappings."""
    mapped = [{**message, "tool_calls": [CALLED]} if "tool_calls" in message else message for message in messages]
    out = family.oracle().apply_chat_template(mapped, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
    return tuple(out["input_ids"]), tuple(float(bit) for bit in out["assistant_masks"])


def check_equal(example: Example, expected: tuple[tuple[int, ...], tuple[float, ...]]) -> None:
    assert example.tokens == expected[0]
    assert example.weights == expected[1]
    assert not example.truncated


@pytest.mark.parametrize("name", ["nano", "llama", "qwen", "gemma"])
@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
def test_generation_blocks_give_the_oracles_ids_and_mask(family: Any, name: str, messages: list[dict[str, Any]]) -> None:
    model = family(name)
    examples = model.renderer().examples(check_messages(messages), max_tokens=512)
    assert len(examples) == 1
    check_equal(examples[0], oracle(model, messages))


@pytest.mark.parametrize("name", ["nano", "llama", "gemma"])
@pytest.mark.parametrize("messages", [SINGLE, MULTI], ids=["single", "multi"])
def test_prefixes_find_what_generation_blocks_would_mark(family: Any, name: str, messages: list[dict[str, Any]]) -> None:
    bare, marked = family(name, marked=False), family(name)
    examples = bare.renderer().examples(messages, max_tokens=512)
    assert len(examples) == 1
    check_equal(examples[0], oracle(marked, messages))


@pytest.mark.parametrize("name", ["nano", "llama", "qwen"])
def test_tools_and_calls_give_the_oracles_ids_and_mask(family: Any, name: str) -> None:
    model = family(name)
    tools = [*TOOLS]
    examples = model.renderer().examples(check_messages(TOOL_TURNS), tools, max_tokens=1024)
    check_equal(examples[0], oracle(model, TOOL_TURNS, tools))


@pytest.mark.parametrize("name", ["nano", "llama"])
def test_tools_and_calls_by_prefixes(family: Any, name: str) -> None:
    examples = family(name, marked=False).renderer().examples(TOOL_TURNS, TOOLS, max_tokens=1024)
    assert len(examples) == 1
    check_equal(examples[0], oracle(family(name), TOOL_TURNS, TOOLS))


def test_a_template_that_rewrites_earlier_turns_gives_one_example_per_trained_turn(family: Any) -> None:
    bare, marked = family("qwen", marked=False), family("qwen")
    examples = bare.renderer().examples(MULTI, max_tokens=512)
    assert len(examples) == 2
    for example, end in zip(examples, (3, 5), strict=True):
        ids, mask = oracle(marked, MULTI[:end])
        first = len(ids) - mask[::-1].index(1.0) - 1  # the last turn alone is trained
        while mask[first - 1]:
            first -= 1
        assert example.tokens == ids
        assert example.weights == tuple([0.0] * first + list(mask[first:]))
    text = bare.renderer().decode(examples[0].tokens, skip_special_tokens=False)
    assert "<think>" in text
    only_last = [*MULTI[:2], {**MULTI[2], "weight": 0}, *MULTI[3:]]
    assert bare.renderer().examples(only_last, max_tokens=512) == examples[1:]


@pytest.mark.parametrize("name", ["nano", "llama", "qwen", "gemma"])
def test_prompts_are_the_oracles(family: Any, name: str) -> None:
    model = family(name, marked=False)
    for messages in (SINGLE[:1], MULTI[:2], MULTI[:4]):
        expected = model.oracle().apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert model.renderer().prompt(messages) == expected


def test_thinking_is_switched_where_the_template_has_a_switch(family: Any) -> None:
    source = family("nano").template + (
        "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    )
    thinker, plain = family(source=source), family("nano").renderer()
    renderer = thinker.renderer()
    assert (renderer.thinks(), plain.thinks()) == (True, False)
    for thinking, knobs in ((None, {}), (True, {"enable_thinking": True}), (False, {"enable_thinking": False})):
        expected = thinker.oracle().apply_chat_template(SINGLE[:1], add_generation_prompt=True, **knobs)["input_ids"]
        assert renderer.prompt(SINGLE[:1], thinking=thinking) == expected
        assert plain.prompt(SINGLE[:1], thinking=thinking) == plain.prompt(SINGLE[:1])
        draft = renderer.prompt_draft(SINGLE[:1], thinking=thinking)
        (measure,) = renderer.measure([draft], max_tokens=5)
        assert (measure.n_tokens, measure.n_trained, measure.n_whole) == (5, 0, len(expected))


@pytest.mark.parametrize("name", ["nano", "llama", "gemma"])
@pytest.mark.parametrize("marked", [True, False])
def test_a_prompt_is_the_context_of_the_answer_that_is_trained(family: Any, name: str, marked: bool) -> None:
    renderer = family(name, marked=marked).renderer()
    (example,) = renderer.examples(SINGLE, max_tokens=512)
    prompt = renderer.prompt(SINGLE[:1])
    assert example.tokens[: len(prompt)] == tuple(prompt)
    assert not any(example.weights[: len(prompt)])
    assert example.weights[len(prompt)] == 1.0
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert renderer.decode(trained) == "It is sunny."
    assert trained[-1] in renderer.stop_ids
    assert example.n_trained == len(trained)


@pytest.mark.parametrize("marked", [True, False])
def test_weights_choose_the_turns(family: Any, marked: bool) -> None:
    renderer = family("llama", marked=marked).renderer()
    messages = [*MULTI[:2], {**MULTI[2], "weight": 0}, MULTI[3], {**MULTI[4], "weight": 1.0}]
    (example,) = renderer.examples(check_messages(messages, training=True), max_tokens=512)
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert renderer.decode(trained) == "You are welcome!"
    unweighted = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in MULTI]
    assert renderer.examples(unweighted, max_tokens=512) == []
    assert renderer.examples(MULTI[:2], max_tokens=512) == []


def test_long_conversations_lose_their_end(family: Any) -> None:
    renderer = family("nano").renderer()
    (whole,) = renderer.examples(MULTI, max_tokens=512)
    (cut,) = renderer.examples(MULTI, max_tokens=40)
    assert cut.truncated
    assert cut.tokens == whole.tokens[:40]
    assert cut.weights == whole.weights[:40]
    (exact,) = renderer.examples(MULTI, max_tokens=len(whole.tokens))
    assert not exact.truncated


def test_many_conversations_at_once_are_each_alone(family: Any) -> None:
    renderer = family("qwen", marked=False).renderer()
    silent = [{"role": "user", "content": "a"}]
    rows = renderer.examples_of([(SINGLE, None, None), (silent, None, None), (MULTI, TOOLS, None)], max_tokens=99)
    assert rows == [renderer.examples(SINGLE, max_tokens=99), [], renderer.examples(MULTI, TOOLS, max_tokens=99)]
    assert [len(row) for row in rows] == [1, 0, 2]


def test_the_developer_is_the_system_where_the_template_knows_no_developer(family: Any) -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *SINGLE]
    as_system = [{"role": "system", "content": "Be brief."}, *SINGLE]
    renderer = family("llama").renderer()
    assert renderer.examples(messages, max_tokens=512) == renderer.examples(as_system, max_tokens=512)
    knowing = (
        "{% for m in messages %}{% if m.role == 'developer' %}[developer]{% else %}[{{ m.role }}]{% endif %}"
        "{{ m.content }}{% endfor %}"
    )
    assert (
        family(source=knowing).renderer().decode(family(source=knowing).renderer().prompt(messages[:1]))
        == "[developer]Be brief."
    )


def test_parts_are_joined_and_a_refusal_is_what_was_said(family: Any) -> None:
    renderer = family("nano").renderer()
    parts = [{"type": "text", "text": "What is "}, {"type": "text", "text": "the weather?"}]
    refusal = {"role": "assistant", "content": None, "refusal": "It is sunny."}
    assert renderer.examples([{"role": "user", "content": parts}, SINGLE[1]], max_tokens=99) == renderer.examples(
        SINGLE, max_tokens=99
    )
    assert renderer.examples([SINGLE[0], refusal], max_tokens=99) == renderer.examples(SINGLE, max_tokens=99)


def test_function_calls_are_tool_calls(family: Any) -> None:
    legacy = [
        {"role": "user", "content": "Weather in Zürich?"},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "weather", "content": '{"sun": true}'},
        {"role": "assistant", "content": "Sunny."},
    ]
    renderer = family("qwen").renderer()
    assert renderer.examples(legacy, max_tokens=512) == renderer.examples(TOOL_TURNS, max_tokens=512)


def test_arguments_that_are_no_json_are_given_as_they_are(family: Any) -> None:
    broken = {**CALL, "function": {"name": "weather", "arguments": '{"city": '}}
    listed = {**CALL, "function": {"name": "weather", "arguments": "[1]"}}
    renderer = family("qwen").renderer()
    for call in (broken, listed):
        (example,) = renderer.examples([TOOL_TURNS[0], {"role": "assistant", "tool_calls": [call]}], max_tokens=512)
        assert call["function"]["arguments"] in renderer.decode(example.tokens)


def test_a_template_that_pastes_arguments_gets_the_string(family: Any) -> None:
    source = (
        "{% for m in messages %}[{{ m.role }}]{{ m['content'] + '' }}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    renderer = family(source=source).renderer()
    (example,) = renderer.examples(TOOL_TURNS, max_tokens=512)
    assert renderer.decode(example.tokens).startswith('[user]Weather in Zürich?[assistant]weather{"city": "Zürich"}[tool]')


def test_what_the_template_would_drop_is_refused(family: Any) -> None:
    renderer = family("gemma").renderer()
    with pytest.raises(RenderError, match="no place for tools"):
        renderer.prompt(SINGLE[:1], TOOLS)
    with pytest.raises(RenderError, match="no place for tool calls") as caught:
        renderer.examples(TOOL_TURNS, max_tokens=512)
    assert caught.value.message_number == 2
    assert renderer.prompt(SINGLE[:1], []) == renderer.prompt(SINGLE[:1])


@pytest.mark.parametrize("marked", [True, False])
def test_a_refusing_template_names_the_message(family: Any, marked: bool) -> None:
    renderer = family("gemma", marked=marked).renderer()
    twice = [SINGLE[0], SINGLE[1], SINGLE[1]]
    with pytest.raises(RenderError, match=r"^message 3: .*Roles must alternate") as caught:
        renderer.examples(twice, max_tokens=512)
    assert caught.value.message_number == 3
    with pytest.raises(RenderError):
        renderer.prompt([SINGLE[0], SINGLE[0]])


def test_a_refusal_that_no_prefix_repeats_names_no_message(family: Any) -> None:
    source = "{% if add_generation_prompt %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
    with pytest.raises(RenderError) as caught:
        family(source=source).renderer().prompt(MULTI[:2])
    assert caught.value.message_number is None


def test_a_tokenizer_that_marks_words_and_falls_back_to_bytes(family: Any) -> None:
    model = family("llama")
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", *SPECIAL_OF_LLAMA, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(special_tokens=special, vocab_size=400, show_progress=False)
    tokenizer.train_from_iterator([" ".join(str(message["content"]) for message in SINGLE)], trainer)
    tokenizer.save(str(model.folder / "tokenizer.json"))
    for messages in (SINGLE, MULTI):
        (example,) = model.renderer().examples(messages, max_tokens=512)
        check_equal(example, oracle(model, messages))
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert "here 🎉" in model.renderer().decode(trained, skip_special_tokens=False)


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_the_embedded_base_is_rendered_as_transformers_does(tools: Any) -> None:
    from transformers import AutoTokenizer

    folder = Path(str(files("tunesmith"))) / "bases" / "tunesmith-nano"
    if not (folder / "tokenizer.json").exists():
        pytest.skip("the embedded base is not built")
    loaded = AutoTokenizer.from_pretrained(folder)
    renderer = Renderer.load(folder)
    assert loaded.eos_token_id in renderer.stop_ids
    for messages in (SINGLE, MULTI, TOOL_TURNS):
        mapped = [{**message, "tool_calls": [CALLED]} if "tool_calls" in message else message for message in messages]
        out = loaded.apply_chat_template(mapped, tools=tools, return_dict=True, return_assistant_tokens_mask=True)
        (example,) = renderer.examples(messages, tools, max_tokens=2048)
        check_equal(example, (tuple(out["input_ids"]), tuple(map(float, out["assistant_masks"]))))
        prompt = loaded.apply_chat_template(mapped, tools=tools, add_generation_prompt=True)["input_ids"]
        assert renderer.prompt(messages, tools) == prompt

"""Golden tests on the chat templates of real model families, which TRL carries: ours render as `transformers` does."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from jinja2 import UndefinedError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tunesmith.data.render import Renderer, RenderError

_TRL = find_spec("trl")
FOLDER = Path(_TRL.submodule_search_locations[0]) / "chat_templates" if _TRL and _TRL.submodule_search_locations else Path()
FAMILIES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
SPECIAL = re.compile(r"<[|\uff5c][^<>\n'\"]{1,40}?[|\uff5c]>|<[a-z]+_of_[a-z]+>|<turn\|>|<\|turn>|</?s>|\[/?INST\]")

CALL = {"id": "call_1abc", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
MAPPED = {**CALL, "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}},
}
ASKED = {"role": "user", "content": "What is the weather?"}
SINGLE = [ASKED, {"role": "assistant", "content": "It is sunny."}]
MULTI = [
    {"role": "system", "content": "Answer."},
    *SINGLE,
    {"role": "user", "content": "Thanks"},
    {"role": "assistant", "content": "Welcome!"},
]
CALLED = [
    ASKED,
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1abc", "content": '{"sun": true}'},
    {"role": "assistant", "content": "It is sunny."},
]


def build(folder: Path, source: str) -> Any:
    """Write a model folder with the template and a tokenizer of bytes; return the oracle on it."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = sorted({"<bos>", "<eos>", "<|im_end|>", *SPECIAL.findall(source)})
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos_token": "<bos>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "chat_template.jinja").write_text(source)
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), chat_template=source, **tokens)


def rendered(oracle: Any, messages: list[dict[str, Any]], tools: Any, **more: Any) -> Any:
    """Render as `transformers` does, with calls, and content where a string of it would not show, as it wants them."""

    def fitted(message: dict[str, Any]) -> dict[str, Any]:
        if "tool_calls" in message:
            return {**message, "content": "", "tool_calls": [MAPPED]}
        return message

    def parts(message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "content": [{"type": "text", "text": message["content"]}]}

    chat = [fitted(message) for message in messages]
    try:
        shown = "Thanks" in oracle.apply_chat_template([{"role": "user", "content": "Thanks"}], tokenize=False)
    except UndefinedError:
        shown = False
    return oracle.apply_chat_template(chat if shown else [*map(parts, chat)], tools=tools, return_dict=True, **more)


def said(renderer: Renderer, example: Any) -> str:
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    return renderer.decode(trained, skip_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_familys_template(name: str, tmp_path: Path) -> None:
    source = (FOLDER / f"{name}.jinja").read_text()
    oracle, renderer = build(tmp_path, source), Renderer.load(tmp_path)
    refusals: list[str] = []
    for messages, tools in ((SINGLE, None), (MULTI, None), (CALLED, [TOOL])):
        try:
            examples = renderer.examples(messages, tools, max_tokens=10_000)
        except RenderError as error:
            refusals.append(str(error))
            continue
        ends = [len(messages)] if len(examples) == 1 else [n + 1 for n, m in enumerate(messages) if m["role"] == "assistant"]
        for example, end in zip(examples, ends, strict=True):
            marked = renderer.template.marks_generation
            expected = rendered(oracle, messages[:end], tools, return_assistant_tokens_mask=marked)
            assert list(example.tokens) == expected["input_ids"]
            if marked:
                assert list(example.weights) == expected["assistant_masks"]
            assert messages[end - 1].get("content", "weather") in said(renderer, example)
            assert "Thanks" not in said(renderer, example)
        prompt = rendered(oracle, messages, tools, add_generation_prompt=True)["input_ids"]
        assert renderer.prompt(messages, tools) == prompt
    assert all(re.search("no place for tool|System role not supported", text) for text in refusals)
    assert len(refusals) <= 2


@pytest.mark.parametrize("name", [name for name in FAMILIES if f"{name}_training" in FAMILIES])
def test_prefixes_find_the_words_that_the_marked_template_marks(name: str, tmp_path: Path) -> None:
    texts: list[str] = []
    for variant in (name, f"{name}_training"):
        folder = tmp_path / variant
        folder.mkdir()
        build(folder, (FOLDER / f"{variant}.jinja").read_text())
        renderer = Renderer.load(folder)
        (example,) = renderer.examples(SINGLE, max_tokens=10_000)
        texts.append(said(renderer, example))
    assert texts[0] in texts[1], "the marked one may add the opening of the turn, or what follows its end"

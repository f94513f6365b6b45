"""The embedded model is what its card says, its template renders as promised, and its world is the same every time."""

import hashlib
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[3]
NANO = ROOT / "models" / "nano"
FOLDER = ROOT / "src" / "tunesmith" / "bases" / "tunesmith-nano"
N_MAX_BYTES = 10_000_000
CALLS: list[Any] = [
    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}},
    {"id": "c2", "type": "function", "function": {"name": "look", "arguments": {"x": "<é'>"}}},
]
CONVERSATION: list[Any] = [
    {"role": "developer", "content": "D"},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "c1", "content": "3"},
    {"role": "system", "content": "S"},
    {"role": "assistant", "content": " done\n"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT))
    from models.nano import world

    yield world
    for name in [name for name in sys.modules if name == "models" or name.startswith("models.")]:
        del sys.modules[name]


def rendered(tokenizer: PreTrainedTokenizerFast, messages: list[Any], **options: Any) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def test_the_template_renders_every_role(tokenizer: PreTrainedTokenizerFast) -> None:
    assert rendered(tokenizer, CONVERSATION) == (
        "<|im_start|>system\nD<|im_end|>\n<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>{"name": "look", "arguments": {"x": 1}}</tool_call>'
        '<tool_call>{"name": "look", "arguments": {"x": "<é\'>"}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\n3<|im_end|>\n<|im_start|>system\nS<|im_end|>\n<|im_start|>assistant\n done\n<|im_end|>\n"
    )


def test_tools_stand_before_the_conversation(tokenizer: PreTrainedTokenizerFast) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    text = rendered(tokenizer, CONVERSATION[:1], tools=[tool])
    assert text == (
        f"<|im_start|>system\nYou can call these tools:\n<tools>\n{json.dumps(tool)}\n</tools><|im_end|>\n"
        "<|im_start|>system\nD<|im_end|>\n"
    )


def test_a_shorter_conversation_is_a_prefix_of_a_longer_one(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = rendered(tokenizer, CONVERSATION)
    for n in range(1, len(CONVERSATION)):
        answers = CONVERSATION[n]["role"] == "assistant"
        assert whole.startswith(rendered(tokenizer, CONVERSATION[:n], add_generation_prompt=answers))


def test_an_answer_is_trained_up_to_its_end_token(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "What is 2 + 5?"}, {"role": "assistant", "content": "7"}]
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    trained = [token for token, kept in zip(made["input_ids"], made["assistant_masks"], strict=True) if kept]
    assert tokenizer.convert_ids_to_tokens(trained) == ["7", "<|im_end|>"]


def test_tokens_are_the_golden_ones(tokenizer: PreTrainedTokenizerFast) -> None:
    made = tokenizer.apply_chat_template([{"role": "user", "content": "What is 12 + 5?"}], add_generation_prompt=True)
    assert tokenizer.convert_ids_to_tokens(made["input_ids"]) == (
        [
            "<|im_start|>",
            "user",
            "Ċ",
            "What",
            "Ġis",
            "Ġ",
            "1",
            "2",
            "Ġ+",
            "Ġ",
            "5",
            "?",
            "<|im_end|>",
            "Ċ",
            "<|im_start|>",
            "assistant",
            "Ċ",
        ]
    )


def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Zürich 東京 🙂\t<tool_call>{}</tool_call>\r\n  1234"
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_the_template_file_is_the_template(tokenizer: PreTrainedTokenizerFast) -> None:
    source = (NANO / "chat_template.jinja").read_text().rstrip("\n")
    assert tokenizer.chat_template == source
    assert (FOLDER / "chat_template.jinja").read_text().rstrip("\n") == source


def test_the_weights_are_those_of_the_card() -> None:
    card = (NANO / "MODEL_CARD.md").read_text()
    told = re.search(r"sha256 `([0-9a-f]{64})`", card)
    assert told is not None
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() == told[1]
    assert (FOLDER / "README.md").read_text() == card


def test_the_folder_is_small_and_bfloat16() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= N_MAX_BYTES
    with safe_open(FOLDER / "model.safetensors", framework="pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"BF16"}


def test_the_config_is_a_plain_llama_with_a_long_context(tokenizer: PreTrainedTokenizerFast) -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert config["max_position_embeddings"] >= 1024
    assert config["vocab_size"] == len(tokenizer)
    assert config["eos_token_id"] == tokenizer.convert_tokens_to_ids("<|im_end|>")


def test_the_world_draws_the_same_texts_from_the_same_seed(world: Any) -> None:
    first, again = random.Random(3), random.Random(3)
    assert [world.sample(first) for _ in range(200)] == [world.sample(again) for _ in range(200)]


def test_training_never_sees_a_held_out_prompt(world: Any) -> None:
    rng = random.Random(5)
    for family in world.FAMILIES:
        assert not any(world.is_held_out(world.draw(rng, family)) for _ in range(40))
        assert world.is_held_out(world.draw(rng, family, held_out=True))


def test_sums_are_right(world: Any) -> None:
    rng = random.Random(7)
    for _ in range(300):
        messages = world.draw(rng, "arithmetic")
        sum_ = re.match(r"(\d+) ([-+*]) (\d+) = (\d+)$", messages[-1]["content"])
        if sum_:
            a, sign, b, value = sum_.groups()
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(value)

"""What a renderer reads from its folder, and how it finds the assistant's words in templates of odd shapes."""

import json
from typing import Any

import pytest

from tunesmith.data.folder import BrokenFolder, pins
from tunesmith.data.render import Renderer, RenderError

SINGLE = [{"role": "user", "content": "What is the weather?"}, {"role": "assistant", "content": "It is sunny."}]
MULTI = [
    {"role": "system", "content": "Answer the customer."},
    {"role": "user", "content": "Where is my parcel? 📦 ¿Dónde?"},
    {"role": "assistant", "content": "In Paris. \n Soon → here 🎉"},
    {"role": "user", "content": "  Thanks  "},
    {"role": "assistant", "content": "You are welcome!"},
]


def test_the_assistant_may_speak_first(family: Any) -> None:
    for marked in (True, False):
        renderer = family("nano", marked=marked).renderer()
        (example,) = renderer.examples([SINGLE[1], SINGLE[0]], max_tokens=99)
        trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
        assert renderer.decode(trained, skip_special_tokens=False) == "It is sunny.<|im_end|>"


def test_a_generation_prompt_that_the_finished_turn_does_not_repeat(family: Any) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    renderer = family(source=source).renderer()
    (example,) = renderer.examples(SINGLE, max_tokens=99)
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert renderer.decode(trained, skip_special_tokens=False) == "It is sunny.<|im_end|>"


def test_an_end_of_turn_behind_the_generation_block_is_trained(family: Any) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
        "{% endgeneration %}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    )
    renderer = family(source=source).renderer()
    (example,) = renderer.examples(SINGLE, max_tokens=99)
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert renderer.decode(trained, skip_special_tokens=False) == "It is sunny.<|im_end|>"


def test_a_generation_block_inside_a_captured_text_falls_back_to_prefixes(family: Any) -> None:
    source = (
        "{% for m in messages %}{% set text %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}"
        "{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endset %}{{ text }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    renderer = family(source=source).renderer()
    (example,) = renderer.examples(MULTI, max_tokens=512)
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert (
        renderer.decode(trained, skip_special_tokens=False)
        == "In Paris. \n Soon → here 🎉<|im_end|>You are welcome!<|im_end|>"
    )


def test_a_template_that_refuses_to_open_a_turn_is_asked_with_other_words(family: Any) -> None:
    source = (
        "{% if add_generation_prompt %}{{ raise_exception('no') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    )
    renderer = family(source=source).renderer()
    (example,) = renderer.examples(SINGLE, max_tokens=99)
    trained = [token for token, weight in zip(example.tokens, example.weights, strict=True) if weight]
    assert renderer.decode(trained, skip_special_tokens=False) == "It is sunny.<|im_end|>"


def test_a_template_that_does_not_show_the_answer_is_refused(family: Any) -> None:
    source = "{% for m in messages %}{{ m.role }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    with pytest.raises(RenderError, match="does not tell where the assistant's words begin") as caught:
        family(source=source).renderer().examples(SINGLE, max_tokens=99)
    assert caught.value.message_number == 2


def test_stop_ids_come_from_every_place_that_names_them(family: Any) -> None:
    model = family("llama")
    tokenizer = model.oracle()
    (model.folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 7]}))
    (model.folder / "config.json").write_text(json.dumps({"eos_token_id": 9}))
    turn_end = tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert model.renderer().stop_ids == {5, 7, 9, tokenizer.eos_token_id, turn_end}
    assert model.renderer().vocab_size == len(tokenizer)


def test_decoding_whole_and_in_steps(family: Any) -> None:
    renderer = family("nano").renderer()
    (example,) = renderer.examples(MULTI, max_tokens=512)
    stream, said = renderer.stream(), renderer.stream(skip_special_tokens=False)
    pieces = [stream.step(token) for token in example.tokens]
    assert "" in pieces
    assert "".join(pieces) == renderer.decode(example.tokens)
    assert "".join(said.step(token) for token in example.tokens) == renderer.decode(
        example.tokens, skip_special_tokens=False
    )


def test_hashes_are_the_pins_of_the_folder(family: Any) -> None:
    model = family("nano")
    (model.folder / "model.safetensors").write_bytes(b"")
    renderer = model.renderer()
    pinned = pins(model.folder)
    assert renderer.tokenizer_sha256 == pinned["tokenizer"]
    assert renderer.template_sha256 == pinned["template"]


def test_padding_and_truncation_of_the_tokenizer_file_are_undone(family: Any) -> None:
    model = family("nano")
    expected = model.renderer().prompt(MULTI)
    file = model.folder / "tokenizer.json"
    saved = json.loads(file.read_text())
    saved["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    saved["padding"] = {"strategy": {"Fixed": 900}, "direction": "Right", "pad_to_multiple_of": None}
    saved["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    file.write_text(json.dumps(saved))
    assert model.renderer().prompt(MULTI) == expected


def test_special_tokens_may_be_objects_or_stand_in_the_old_file(family: Any) -> None:
    model = family("llama")
    expected = model.renderer().prompt(MULTI)
    config = model.folder / "tokenizer_config.json"
    config.write_text(json.dumps({"bos_token": {"content": "<|begin_of_text|>", "lstrip": False}, "add_bos_token": True}))
    assert model.renderer().prompt(MULTI) == expected
    config.unlink()
    (model.folder / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<|begin_of_text|>"}))
    assert model.renderer().prompt(MULTI) == expected


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("tokenizer.json", None, "cannot be read"),
        ("tokenizer.json", "{}", "is not a tokenizer"),
        ("tokenizer_config.json", "{", "JSON"),
        ("generation_config.json", "[]", "not a JSON object"),
        ("config.json", "\ufffd", "JSON"),
        ("chat_template.jinja", None, "no chat template"),
        ("chat_template.jinja", "{% if %}", "does not parse"),
    ],
)
def test_a_broken_folder_says_what_is_wrong(family: Any, file: str, content: str | None, words: str) -> None:
    model = family("nano")
    if content is None:
        (model.folder / file).unlink()
    else:
        (model.folder / file).write_text(content)
    with pytest.raises(BrokenFolder, match=words):
        Renderer.load(model.folder)

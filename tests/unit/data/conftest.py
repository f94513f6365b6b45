"""Model folders with tiny byte-level tokenizers and chat templates in the manner of well-known families."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tunesmith.data.render import Renderer

TEXT = [
    "The customer asks when the parcel will arrive and the assistant answers politely.",
    "What is the weather in Paris? It is sunny. Route the ticket to billing, shipping or repair.",
    '{"name": "weather", "arguments": {"city": "Paris"}} system user assistant tool developer model',
]

# ChatML with tools; every turn ends with the end-of-turn token and a newline.
NANO = """\
{%- for message in messages %}
{%- if loop.first and tools %}{{ '<|im_start|>tools\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- BEGIN %}{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}
{{- '<tool_call>' + ({'name': call.function.name, 'arguments': call.function.arguments} | tojson) + '</tool_call>' }}
{%- endfor %}{{ '<|im_end|>' }}{% END %}{{ '\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Header tokens around the role, content trimmed, a tool call alone as JSON, the tool's role called ipython.
LLAMA = """\
{{- bos_token }}
{%- if tools %}
  {{- '<|start_header_id|>system<|end_header_id|>\\n\\nTools: ' + (tools | tojson(indent=2)) + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
  {%- if 'tool_calls' in message %}
    {%- if message.tool_calls | length != 1 %}{{ raise_exception('One call at a time, please') }}{% endif %}
    {%- set call = message.tool_calls[0].function %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
    {%- BEGIN %}{{ '{"name": "' + call.name + '", "parameters": ' + (call.arguments | tojson) + '}<|eot_id|>' }}{% END %}
  {%- elif message.role == 'tool' %}
    {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + (message.content | tojson) + '<|eot_id|>' }}
  {%- elif message.role == 'assistant' %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
    {%- BEGIN %}{{ (message.content | trim) + '<|eot_id|>' }}{% END %}
  {%- else %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + (message.content | trim) + '<|eot_id|>' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

# Thinking is written for the turns after the last question and left out of earlier ones.
QWEN = """\
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- if tools %}{{ '<|im_start|>system\\n# Tools\\n' }}
  {%- for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
  {%- if message.role == 'assistant' %}
    {{- '<|im_start|>assistant\\n' }}
    {%- BEGIN %}
    {%- if loop.index0 > ns.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{{ message.content or '' }}
    {%- for call in message.tool_calls or [] %}
      {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
      {%- set given = call.function.arguments %}
      {%- if given is string %}{{ given }}{% else %}{{ given | tojson }}{% endif %}
      {{- '}\\n</tool_call>' }}
    {%- endfor %}{{ '<|im_end|>' }}{% END %}{{ '\\n' }}
  {%- elif message.role == 'tool' %}
    {{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' }}
  {%- else %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

# Strict alternation, the system message in front of the first question, the assistant called model, no tools.
GEMMA = """\
{{ bos_token }}
{%- set first = '' %}
{%- set rest = messages %}
{%- if messages[0].role == 'system' %}
  {%- set first = messages[0].content + '\\n\\n' %}
  {%- set rest = messages[1:] %}
{%- endif %}
{%- for message in rest %}
  {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
  {%- if message.role == 'assistant' %}
    {{- '<start_of_turn>model\\n' }}
    {%- BEGIN %}{{ (message.content | trim) + '<end_of_turn>' }}{% END %}{{ '\\n' }}
  {%- else %}
    {{- '<start_of_turn>' + message.role + '\\n' + (first if loop.first else '') }}
    {{- (message.content | trim) + '<end_of_turn>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

SPECIAL = {
    "nano": ("<|im_start|>", "<|im_end|>"),
    "llama": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"),
    "qwen": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    "gemma": ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
}
EOS = {"nano": "<|im_end|>", "llama": "<|end_of_text|>", "qwen": "<|im_end|>", "gemma": "<eos>"}
BOS = {"llama": "<|begin_of_text|>", "gemma": "<bos>"}
TEMPLATES = {"nano": NANO, "llama": LLAMA, "qwen": QWEN, "gemma": GEMMA}


def template(family: str, *, marked: bool) -> str:
    """Return a family's template, with or without its generation blocks."""
    begin, end = ("generation", "endgeneration") if marked else ("if true", "endif")
    return TEMPLATES[family].replace("BEGIN %}", f"{begin} %}}").replace("{% END %}", f"{{% {end} %}}")


@dataclass(frozen=True)
class Family:
    """A model folder and what stands in it."""

    folder: Path
    template: str
    tokens: dict[str, str]

    def renderer(self) -> Renderer:
        return Renderer.load(self.folder)

    def oracle(self) -> Any:
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast(
            tokenizer_file=str(self.folder / "tokenizer.json"), chat_template=self.template, **self.tokens
        )


def write_folder(folder: Path, source: str, special: tuple[str, ...], tokens: dict[str, str]) -> Family:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))
    (folder / "chat_template.jinja").write_text(source)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 512}))
    return Family(folder, source, tokens)


@pytest.fixture
def family(tmp_path: Path) -> Callable[..., Family]:
    """Return a builder of model folders: `family("llama", marked=True)`, or with a template of one's own."""

    def build(name: str = "nano", *, marked: bool = True, source: str | None = None) -> Family:
        tokens = {"eos_token": EOS[name]} | ({"bos_token": BOS[name]} if name in BOS else {})
        folder = tmp_path / f"{name}-{marked}-{abs(hash(source))}"
        return write_folder(folder, source if source is not None else template(name, marked=marked), SPECIAL[name], tokens)

    return build

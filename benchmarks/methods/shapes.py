"""The model and the rows of each work: random weights in Qwen3's architecture, words of a made-up language."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

SEED = 7
VOCABULARY, LARGE_VOCABULARY = 8192, 151_936
WORDS = 8180
#: The last words end an answer, as the end of a turn does: sampled from random weights, an answer then has 50 tokens.
N_STOPS = 160
SAID = WORDS - N_STOPS
#: Tokens of the system prompt that all chats have, in the work about it.
N_SYSTEM = 420
_SPECIAL = ["<pad>", "<|im_start|>", "<|im_end|>", "<unk>"]
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }} <|im_end|>{% endgeneration %}{% else %}{{ m['content'] }} <|im_end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)

Row = dict[str, Any]


def build_base(folder: Path, vocabulary: int = VOCABULARY, *, stops: bool = False) -> None:
    """Write a model with random weights: hidden 384, 6 layers, 16 M parameters with the small vocabulary."""
    import torch
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    words = [*_SPECIAL, "system", "user", "assistant", *(f"w{i}" for i in range(WORDS))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", unk_token="<unk>")
    fast.add_special_tokens({"additional_special_tokens": _SPECIAL[1:3]})
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, num_key_value_heads=2,
        head_dim=64, intermediate_size=1536, max_position_embeddings=4096, tie_word_embeddings=True, pad_token_id=0,
        eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    if stops:
        model.generation_config.eos_token_id = [2, *range(len(words) - N_STOPS, len(words))]
    model.save_pretrained(folder)


def write_rows(path: Path, n_rows: int, row: Callable[[random.Random], Row], *, seed: int = SEED) -> None:
    """Write a file of so many rows."""
    randomness = random.Random(seed)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row(randomness)) + "\n" for _ in range(n_rows)))


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def chat(randomness: random.Random) -> Row:
    """Return a chat of 30 to 980 tokens (median about 195), one to three turns, a quarter of it the assistant's."""
    length = int(min(980.0, max(30.0, randomness.lognormvariate(5.27, 0.85))))
    n_turns = randomness.choice([1, 1, 2, 3])
    said = max(3, length - 4 * (1 + 2 * n_turns))
    messages = [_message(randomness, "system", said * 0.2)]
    for _ in range(n_turns):
        messages.append(_message(randomness, "user", said * 0.55 / n_turns))
        messages.append(_message(randomness, "assistant", said * 0.25 / n_turns))
    return {"messages": messages}


def chat_with_system(randomness: random.Random) -> Row:
    """Return a chat of one turn after the system prompt that all have: two thirds of the tokens are the prompt's."""
    system = _message(random.Random(SEED), "system", N_SYSTEM - 3)
    length = _between(randomness, 80, 480)
    return {
        "messages": [
            system,
            _message(randomness, "user", length * 0.55),
            _message(randomness, "assistant", length * 0.45),
        ]
    }


def short_chat(randomness: random.Random) -> Row:
    """Return a chat of about 128 tokens, a quarter of it the assistant's."""
    length = _between(randomness, 90, 180)
    return {"messages": [_message(randomness, "user", length * 0.75), _message(randomness, "assistant", length * 0.25)]}


def pair(randomness: random.Random) -> Row:
    """Return a prompt of 60 to 800 tokens and two answers of 15 to 200."""
    n_prompt, n_answer = _between(randomness, 60, 800), _between(randomness, 15, 200)
    n_other = min(200, max(15, int(n_answer * randomness.uniform(0.6, 1.5))))
    return {
        "input": {"messages": [_message(randomness, "user", n_prompt)]},
        "preferred_output": [_message(randomness, "assistant", n_answer)],
        "non_preferred_output": [_message(randomness, "assistant", n_other)],
    }


def prompt(randomness: random.Random) -> Row:
    """Return a prompt of 60 to 500 tokens, and a text that answers are compared with."""
    n_prompt = _between(randomness, 60, 500)
    return {"messages": [_message(randomness, "user", n_prompt)], "answer": _words(randomness, 50)}


def _message(randomness: random.Random, role: str, n: float) -> dict[str, str]:
    return {"role": role, "content": _words(randomness, n)}


def _words(randomness: random.Random, n: float) -> str:
    return " ".join(f"w{int(SAID * randomness.random() ** 2)}" for _ in range(max(1, int(n))))


def _between(randomness: random.Random, low: int, high: int) -> int:
    """Return a length that is as likely between 60 and 120 as between 120 and 240."""
    return int(math.exp(randomness.uniform(math.log(low), math.log(high))))

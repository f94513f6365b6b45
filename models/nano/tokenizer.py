"""The tokenizer: byte-level BPE learnt from the world's own text, digits one by one, and the chat template beside it."""

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from .world import sample

TEMPLATE = Path(__file__).with_name("chat_template.jinja")
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKERS = ["<tool_call>", "</tool_call>", "<tools>", "</tools>"]
N_VOCAB = 2048
N_CONTEXT = 2048


def corpus(seed: int, n_documents: int) -> Iterator[str]:
    """Yield the texts that the merges are learnt from."""
    rng = random.Random(seed)
    for _ in range(n_documents):
        document = sample(rng)
        if document.tools:
            yield json.dumps(document.tools)
        for message in document.messages:
            yield message["role"] + "\n"
            yield message.get("content") or json.dumps([call["function"] for call in message.get("tool_calls", [])])


def learn(seed: int, n_documents: int) -> Tokenizer:
    """Learn the merges; the tool markers are tokens of their own but stay visible when decoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_VOCAB,
        special_tokens=CONTROL + MARKERS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(seed, n_documents), trainer)
    state = json.loads(tokenizer.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in CONTROL
    return Tokenizer.from_str(json.dumps(state))


def build(folder: Path, seed: int = 7, n_documents: int = 40_000) -> None:
    """Learn the tokenizer and save it with the chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learn(seed, n_documents),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=N_CONTEXT,
    )
    tokenizer.chat_template = TEMPLATE.read_text().rstrip("\n")
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    build(arguments.parse_args().folder)

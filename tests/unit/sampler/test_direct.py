"""The sampler inside a training, where each sample is one of a group: what goes wrong with one is its own."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer

import tunesmith.bases
from tunesmith.data.folder import pins
from tunesmith.data.grammar import grammar_of
from tunesmith.domain.ports import Ask, Drawn
from tunesmith.lm.blueprint import open_base
from tunesmith.lm.load import load
from tunesmith.lm.lora import LoraModel
from tunesmith.sampler.direct import DirectSampler

NANO = Path(tunesmith.bases.__path__[0]) / "tunesmith-nano"


def test_a_sample_whose_grammar_leads_nowhere_ends_alone() -> None:
    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))
    base = load(NANO)
    sampler = DirectSampler(
        base, LoraModel(base.model), slot=0, start_slot=None, context_length=256, stop_ids=frozenset({2}), folder=NANO
    )
    endless = {"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1}
    schema = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "anyOf": [{"type": "boolean"}, endless]}
    ask = Ask(
        tokenizer.encode("Say true or false:").ids, 24, 20, seed=3, tuned=False, temperature=3.0, grammar=grammar_of(schema)
    )
    drawn: dict[int, Drawn] = {}
    with torch.no_grad():
        assert sampler.draw([ask], lambda one: drawn.update({one.sample: one}), stop=lambda: False)
    assert sorted(drawn) == list(range(24))
    ends = {one.finish for one in drawn.values()}
    assert ends == {"stop", "length"}, "some go either way"
    for one in drawn.values():
        text = tokenizer.decode(one.tokens)
        assert len(one.tokens) == len(one.logprobs) >= 1
        assert json.loads(text) in (True, False) if one.finish == "stop" else text.startswith("[")


def test_a_base_of_our_own_modules_is_sampled_as_one_of_transformers(tmp_path: Path) -> None:
    def drawn() -> tuple[str, list[Drawn]]:
        base, lora = open_base(NANO, pins(NANO), tmp_path)
        sampler = DirectSampler(
            base, lora, slot=0, start_slot=None, context_length=256, stop_ids=frozenset({2}), folder=NANO
        )  # fmt: skip
        ask = Ask([5, 6, 7], 3, 12, seed=3, tuned=False, temperature=1.0)
        found: list[Drawn] = []
        with torch.no_grad():
            sampler.draw([ask], found.append, stop=lambda: False)
        return type(base.model).__name__, sorted(found, key=lambda one: one.sample)

    (theirs, expected), (ours, got) = drawn(), drawn()
    assert (theirs, ours) == ("LlamaForCausalLM", "Plain")
    assert got == expected

"""Grammars of JSON schemas: whatever a tokenizer of bytes writes under one is JSON of the schema."""

import json
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tunesmith.data.grammar import GrammarRefused, grammar_of

SCHEMAS: list[dict[str, Any]] = [
    {"type": "string", "maxLength": 5},
    {"type": "string", "enum": ['a"b', "ü", "\\"]},
    {"type": "integer", "minimum": -3, "maximum": 12},
    {"const": {"a": [1, None, True]}},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
    {"anyOf": [{"type": "null"}, {"type": "string", "pattern": "^[a-c]{2}$"}]},
    {
        "type": "object",
        "properties": {"b": {"type": "boolean"}, "a": {"$ref": "#/$defs/leaf"}},
        "required": ["b"],
        "additionalProperties": False,
        "$defs": {"leaf": {"type": "string", "format": "date"}},
    },
]


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_end|>"])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_whatever_is_drawn_at_random_is_json_of_the_schema(tokenizer_json: Path, schema: dict[str, Any]) -> None:
    import torch

    from tunesmith.sampler.grammar import Grammars, allowed, take

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    n_vocab, end = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|im_end|>")
    grammars = Grammars(tokenizer_json, n_vocab + 7)
    for seed in range(8):
        chance, tokens = random.Random(seed), list[int]()
        matcher = grammars.matcher(grammar_of(schema), frozenset({end}))
        while True:
            mask = allowed([None, matcher], n_vocab + 7, torch.device("cpu"))
            assert mask is not None
            assert mask[0].all()
            assert not mask[1, n_vocab:].any()  # what is no token is never taken
            token = chance.choice(mask[1].nonzero()[:, 0].tolist())
            if token == end:
                break
            tokens.append(token)
            if take(matcher, token):
                break
        jsonschema.validate(json.loads(tokenizer.decode(tokens)), schema)


def test_a_token_that_does_not_fit_breaks_the_grammar(tokenizer_json: Path) -> None:
    from tunesmith.sampler.grammar import GrammarBroken, Grammars, take

    matcher = Grammars(tokenizer_json, 257).matcher(grammar_of({"type": "boolean"}), frozenset({256}))
    with pytest.raises(GrammarBroken):
        take(matcher, 0)


def test_a_stop_before_the_end_breaks_the_grammar(tokenizer_json: Path) -> None:
    from tunesmith.sampler.grammar import GrammarBroken, Grammars, take

    matcher = Grammars(tokenizer_json, 257).matcher(grammar_of({"type": "boolean"}), frozenset({256}))
    with pytest.raises(GrammarBroken, match="to its end"):
        take(matcher, 256, is_stop=True)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "nonsense"}, "Invalid type: nonsense"),
        ({"uniqueItems": True, "type": "array"}, "uniqueItems"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "not"),
        ({"enum": []}, "empty"),
        ({"$ref": "#/nowhere"}, "does not exist"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(GrammarRefused, match=told):
        grammar_of(schema)


def test_a_schema_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    with pytest.raises(GrammarRefused):
        grammar_of(schema)

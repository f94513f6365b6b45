"""Answers in a form: from a JSON schema to a grammar that says after every token which ones may follow.

The grammar is llguidance's; what it does not know of JSON Schema is refused, never passed over.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from llguidance import LLMatcher

_N_SHOWN: Final = 300


class GrammarRefused(ValueError):
    """The schema has what cannot be kept to, or is none."""


def grammar_of(schema: Mapping[str, Any]) -> str:
    """Return the grammar of the JSON values that a schema allows.

    Raises:
        GrammarRefused: it is no JSON schema, or has what cannot be kept to.
    """
    try:
        grammar = LLMatcher.grammar_from_json_schema(
            json.dumps(schema),
            # one form of layout, so that a small model cannot go on with white space for ever
            overrides={
                "item_separator": ", ",
                "key_separator": ": ",
                "whitespace_flexible": False,
                "coerce_one_of": True,
                "lenient": False,
            },
        )
    except (ValueError, RecursionError) as error:
        raise GrammarRefused(f"{error}") from error
    if wrong := LLMatcher.validate_grammar(grammar):
        raise GrammarRefused(" ".join(wrong.split())[:_N_SHOWN].rstrip("."))
    return grammar

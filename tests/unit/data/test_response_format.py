"""What form of answers a `response_format` asks for."""

from typing import Any

import pytest

from tunesmith.data.response_format import schema_of

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}, SCHEMA),
        ({"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}, SCHEMA),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, {}),
        ({"type": "json_schema", "json_schema": None, "name": "n", "schema": SCHEMA}, SCHEMA),
    ],
)
def test_both_ways_of_writing_it_mean_the_same(form: Any, schema: Any) -> None:
    assert schema_of(form) == schema

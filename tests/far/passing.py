"""What tests of chat through models upstream share: the models there, and how to ask for them."""

from typing import Any

import openai
import pytest

from far import FarModel

SAID: Any = [{"role": "user", "content": "Hello"}]
SECRET = "sk-far-7d0c5a31e2"
FORM: Any = {
    "type": "json_schema",
    "json_schema": {"name": "thing", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
}
KNOWN = {
    "m": FarModel(),
    "sees": FarModel(images=True),
    "thinks": FarModel(efforts=("low", "high")),
    "plain": FarModel(structured=False),
    "older": FarModel(limit="max_tokens"),
    "vectors": FarModel(chat=False, embeddings=True),
}


def ask(client: openai.OpenAI, model: str = "my-m", **wishes: Any) -> Any:
    return client.chat.completions.create(model=model, **{"messages": SAID, **wishes})


def refused(client: openai.OpenAI, kind: type[openai.APIStatusError], **wishes: Any) -> openai.APIStatusError:
    """Return the error of a request, the same one whether it is streamed or not."""
    with pytest.raises(kind) as caught:
        ask(client, **wishes)
    assert SECRET not in str(caught.value.body)
    return caught.value

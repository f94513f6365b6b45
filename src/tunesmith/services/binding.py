"""What a base of this server can and cannot do of a chat request: what binds its answer, whether it thinks; no images."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.chat import Message, Tool
from tunesmith.core.errors import InvalidRequest, NotAvailable
from tunesmith.core.tool_choice import ToolChoice
from tunesmith.data.thinking import Thought, thinking

if TYPE_CHECKING:
    from tunesmith.data.render import Renderer


def refuse_images(model: str, messages: Sequence[Message]) -> None:
    """Refuse what a base of this server, which reads text, could not see.

    Raises:
        NotAvailable: naming the first image.
    """
    for number, message in enumerate(messages):
        content = message.get("content")
        for place, part in enumerate(content if isinstance(content, list) else ()):
            if part["type"] == "image_url":
                param = f"messages[{number}].content[{place}]"
                raise NotAvailable(
                    f"{param} is an image, and {model} reads text alone: leave it out, or ask a model that sees "
                    "(`tunesmith models add NAME --upstream URL`).",
                    param=param,
                )


def switched(renderer: "Renderer", model: str, effort: str | None) -> bool | None:
    """Return how the template's switch for thinking is to be turned; None leaves it.

    Raises:
        InvalidRequest: the base has no thinking mode, or none that can be left.
    """
    thinks = None if effort is None else thinking(effort)
    if thinks and not renderer.thinks():
        raise InvalidRequest(
            f"'reasoning_effort' '{effort}' is for models that think before they answer, and {model} has no such mode: "
            'leave it out, or say "none".',
            param="reasoning_effort",
        )
    if thinks is False and renderer.thinks(False):
        raise InvalidRequest(
            f"{model} always thinks before it answers, so 'reasoning_effort' cannot be '{effort}': leave it out.",
            param="reasoning_effort",
        )
    return thinks


def binding(
    renderer: "Renderer",
    tools: Sequence[Tool] | None,
    choice: ToolChoice,
    *,
    one_call: bool,
    schema: Mapping[str, Any] | None,
    thought: Thought,
) -> str | None:
    """Return the grammar that an answer keeps to, None where nothing binds it.

    Raises:
        InvalidRequest: a schema cannot be kept to, of the answer or of a tool.
    """
    from tunesmith.data.grammar import GrammarRefused, answer_grammar  # noqa: PLC0415 - a server that starts need not wait

    try:
        return answer_grammar(renderer, tools, choice, one_call=one_call, schema=schema, thought=thought)
    except GrammarRefused as error:
        if error.tool is None:
            raise InvalidRequest(f"Answers cannot be kept to this schema: {error}.", param="response_format") from error
        assert tools is not None
        function = tools[error.tool]["function"]
        way_out = "leave 'strict' out" if function.get("strict") else "leave 'tool_choice' \"auto\""
        raise InvalidRequest(
            f"The arguments of {function['name']} cannot be kept to this schema: {error}. Change it, or {way_out}: then the "
            "model writes them as it likes.",
            param=f"tools[{error.tool}].function.parameters",
        ) from error

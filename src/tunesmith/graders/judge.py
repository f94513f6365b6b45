"""What the graders with a judge model share: the messages that it is asked, how it is sampled, how its answer is read."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Discriminator, Field, Tag

from tunesmith.graders.base import GraderSchema, GradingFailed, Needs, Question, Sample, Tools, Verdict
from tunesmith.graders.template import Template, render

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class InputText(GraderSchema):
    """A block of text."""

    type: Literal["input_text"]
    text: Template


class OutputText(GraderSchema):
    """A block of text that a model wrote."""

    type: Literal["output_text"]
    text: Template


class InputImage(GraderSchema):
    """A picture by URL."""

    type: Literal["input_image"]
    image_url: Template
    detail: str | None = None
    file_id: None = None


class AudioData(GraderSchema):
    """Sound as base64 text."""

    data: Template
    format: Literal["mp3", "wav"]


class InputAudio(GraderSchema):
    """A block of sound."""

    type: Literal["input_audio"]
    input_audio: AudioData


Block = Annotated[InputText | OutputText | InputImage | InputAudio, Field(discriminator="type")]


def _form(content: object) -> str:
    """Tell a message's three forms of content apart."""
    if isinstance(content, str):
        return "text"
    return "blocks" if isinstance(content, list) else "block"


Part = Annotated[Annotated[Template, Tag("text")] | Annotated[Block, Tag("block")], Discriminator(_form)]
Content = Annotated[
    Annotated[Template, Tag("text")] | Annotated[Block, Tag("block")] | Annotated[list[Part], Tag("blocks")],
    Discriminator(_form),
]


class JudgeMessage(GraderSchema):
    """One message of the judge's prompt."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    type: Literal["message"] | None = None


class SamplingParams(GraderSchema):
    """How the judge is sampled; null leaves it to the judge."""

    seed: int | None = None
    top_p: float | None = Field(default=None, ge=0, le=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_completions_tokens: int | None = Field(default=None, ge=1)
    reasoning_effort: Effort | None = None


#: The judge explains itself before it decides.
STEPS: Final[Mapping[str, Any]] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"description": {"type": "string"}, "conclusion": {"type": "string"}},
        "required": ["description", "conclusion"],
        "additionalProperties": False,
    },
}


def blocks(content: str | GraderSchema | Sequence[str | GraderSchema]) -> list[str | GraderSchema]:
    """Return the blocks of a message's content, in whichever of its three forms it is."""
    return [content] if isinstance(content, str | GraderSchema) else list(content)


def needs(messages: Iterable[JudgeMessage], effort: str | None = None) -> Needs:
    """Return what the messages ask of a judge."""
    every = [block for message in messages for block in blocks(message.content)]
    return Needs(
        images=any(isinstance(block, InputImage) for block in every),
        audio=any(isinstance(block, InputAudio) for block in every),
        effort=effort,
    )


def templates(messages: Iterable[JudgeMessage]) -> dict[str, str]:
    """Return the texts of the messages that are filled in, by their field."""
    found: dict[str, str] = {}
    for number, message in enumerate(messages):
        field = f"input[{number}].content"
        if isinstance(message.content, list):
            for index, block in enumerate(message.content):
                found |= _templates(f"{field}[{index}]", block)
        else:
            found |= _templates(field, message.content)
    return found


def _templates(field: str, block: str | GraderSchema) -> dict[str, str]:
    match block:
        case InputImage(image_url=url):
            return {f"{field}.image_url": url}
        case InputAudio(input_audio=audio):
            return {f"{field}.input_audio.data": audio.data}
        case InputText(text=text) | OutputText(text=text):
            return {f"{field}.text": text}
        case str():
            return {field: block}
        case _:
            raise TypeError(f"{block} is no block")


def rendered(messages: Iterable[JudgeMessage], sample: Sample) -> list[dict[str, Any]]:
    """Return the messages as chat completions take them.

    Raises:
        GradingFailed: a template's path leads nowhere.
    """
    return [{"role": message.role, "content": _content(message, sample)} for message in messages]


def _content(message: JudgeMessage, sample: Sample) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return render(message.content, sample)
    return [_part(block, sample) for block in blocks(message.content)]


def _part(block: str | GraderSchema, sample: Sample) -> dict[str, Any]:
    match block:
        case InputImage(image_url=url, detail=detail):
            return {"type": "image_url", "image_url": {"url": render(url, sample), "detail": detail or "auto"}}
        case InputAudio(input_audio=audio):
            return {"type": "input_audio", "input_audio": {"data": render(audio.data, sample), "format": audio.format}}
        case InputText(text=text) | OutputText(text=text):
            return {"type": "text", "text": render(text, sample)}
        case str():
            return {"type": "text", "text": render(block, sample)}
        case _:
            raise TypeError(f"{block} is no block")


async def ask(
    tools: Tools,
    model: str,
    messages: Iterable[JudgeMessage],
    sample: Sample,
    *,
    result: Mapping[str, Any],
    params: SamplingParams | None = None,
) -> tuple[object, Verdict]:
    """Ask a judge for `{"steps": […], "result": …}`; return the result, and the verdict that it was read from.

    Raises:
        GradingFailed: a template's path leads nowhere, the judge cannot be asked, or its answer is not such an object.
    """
    schema = {
        "type": "object",
        "properties": {"steps": STEPS, "result": dict(result)},
        "required": ["steps", "result"],
        "additionalProperties": False,
    }
    sampling = {} if params is None else params.model_dump(exclude_none=True)
    if "max_completions_tokens" in sampling:
        sampling["max_completion_tokens"] = sampling.pop("max_completions_tokens")
    verdict = await tools.judge.ask(Question(model, rendered(messages, sample), "grade", schema, sampling))
    try:
        return json.loads(verdict.text)["result"], verdict
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        details = f"{model} did not answer with a result: {verdict.text[:500]}"
        raise GradingFailed("model_grader_parse_error", details, verdict) from error


def shown(result: object) -> str:
    """Return a judge's result as an error tells it."""
    return repr(result)[:200]

"""What a judge model is asked: messages with text, image and audio blocks, and how it is sampled."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from tunesmith.graders.base import GraderSchema, Template

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

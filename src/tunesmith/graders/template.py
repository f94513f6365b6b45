"""Templates of graders: `{{ item.answer }}`, `{{ sample.output_tools[0].function.arguments }}`; parsed once, not evaluated.

A path begins with a namespace and goes on with `.name`, `[0]` or `["any name"]`, into objects and lists alone. What is not
text is rendered as JSON. What is filled in is not looked at again. `{{ "{{" }}` writes two braces.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, cast

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from tunesmith.graders.base import GradingFailed, Sample

NAMESPACES: Final = ("item", "sample")
#: What a sample can have (`sample.output_json` only where the answer is JSON).
SAMPLE_NAMES: Final = ("output_text", "output_json", "output_tools", "output_audio", "choices")
#: Longest text that a template may grow to.
N_MAX_RENDERED: Final = 8 * 1024 * 1024
_N_SHOWN: Final = 60

_OPEN, _CLOSE = "{{", "}}"
_TEXT: Final = re.compile(r'\s*(?:"([^"]*)"|\'([^\']*)\')\s*')
_NAME: Final = re.compile(r"[^\s.\[\]{}()|\"']+")
_STEP: Final = re.compile(
    r"""\.(?P<name>[^\s.\[\]{}()|"']+)|\[(?P<index>\d{1,9})\]|\["(?P<quoted>[^"]*)"\]|\['(?P<single>[^']*)'\]"""
)

Step = str | int


class TemplateRefused(ValueError):
    """A text that is no template: its message says where and why."""


@dataclass(frozen=True, slots=True)
class Path:
    """A place in the item or the sample."""

    namespace: str
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return self.namespace + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.steps)

    def find(self, sample: Sample) -> object:
        """Return what lies there.

        Raises:
            GradingFailed: `invalid_variable_error`; `sample_parse_error` for the JSON of an answer that is none.
        """
        value: object = sample.item if self.namespace == "item" else sample.sample
        for number, step in enumerate(self.steps):
            value = _inside(value, step)
            if value is None and self.namespace == "sample" and number == 0 and step == "output_json":
                raise GradingFailed(
                    "sample_parse_error", f"{{{{ {self} }}}}: the model's output is not JSON", by_answer=True
                )
            if isinstance(value, _Missing):
                details = f"{{{{ {self} }}}}: there is no {self.upto(number)}"
                # within a part of the sample that there is; where the part itself is absent, the grader is wrong
                raise GradingFailed("invalid_variable_error", details, by_answer=self.namespace == "sample" and number > 0)
        return value

    def upto(self, number: int) -> str:
        """Return the path up to and with a step."""
        return str(Path(self.namespace, self.steps[: number + 1]))


class _Missing:
    """What is not there: null is."""


_MISSING: Final = _Missing()


def _inside(value: object, step: Step) -> object:
    if isinstance(step, str) and isinstance(value, Mapping):
        return cast("Mapping[str, object]", value).get(step, _MISSING)
    if isinstance(step, int) and isinstance(value, Sequence) and not isinstance(value, str):
        row = cast("Sequence[object]", value)
        return row[step] if step < len(row) else _MISSING
    return _MISSING


@lru_cache(maxsize=4096)
def parse(template: str) -> tuple[str | Path, ...]:
    """Return a template's parts: plain text and paths.

    Raises:
        TemplateRefused: braces that do not close, or hold no path.
    """
    parts: list[str | Path] = []
    position = 0
    while (opened := template.find(_OPEN, position)) >= 0:
        if opened > position:
            parts.append(template[position:opened])
        inner, position = _inner(template, opened)
        parts.append(inner)
    if position < len(template):
        parts.append(template[position:])
    return tuple(parts)


def _inner(template: str, opened: int) -> tuple[str | Path, int]:
    """Read what stands in the braces that open at a position; return it and where the text goes on."""
    start = opened + len(_OPEN)
    quoted = _TEXT.match(template, start)
    if quoted and template.startswith(_CLOSE, quoted.end()):
        return quoted[1] if quoted[1] is not None else quoted[2], quoted.end() + len(_CLOSE)
    closed = template.find(_CLOSE, start)
    if closed < 0:
        raise TemplateRefused(f"opens '{{{{' at character {opened} and does not close it")
    return _path(template[start:closed].strip(), opened), closed + len(_CLOSE)


def _path(text: str, opened: int) -> Path:
    where = f"'{{{{ {text[:_N_SHOWN]} }}}}' at character {opened}"
    name = _NAME.match(text)
    if name is None or name[0] not in NAMESPACES:
        raise TemplateRefused(f"has {where}: a path begins with 'item' or 'sample'")
    steps: list[Step] = []
    position = name.end()
    while position < len(text):
        step = _STEP.match(text, position)
        if step is None:
            raise TemplateRefused(
                f"has {where}: after '{text[:position][:_N_SHOWN]}' comes no '.name', '[0]' or '[\"name\"]'"
            )
        steps.append(int(step["index"]) if step["index"] else step["name"] or step["quoted"] or step["single"] or "")
        position = step.end()
    if name[0] == "sample" and (not steps or steps[0] not in SAMPLE_NAMES):
        raise TemplateRefused(f"has {where}: a sample has {', '.join(SAMPLE_NAMES)}")
    return Path(name[0], tuple(steps))


def render(template: str, sample: Sample) -> str:
    """Fill a template in.

    Raises:
        GradingFailed: a path leads nowhere, or the text grows too long.
    """
    texts: list[str] = []
    n_left = N_MAX_RENDERED
    for part in parse(template):
        text = part if isinstance(part, str) else _text(part.find(sample))
        n_left -= len(text)
        if n_left < 0:
            raise _too_long()
        texts.append(text)
    return "".join(texts)


def _too_long() -> GradingFailed:
    return GradingFailed("other_error", f"a template grew longer than {N_MAX_RENDERED} characters")


def values(templates: Iterable[str], sample: Sample) -> list[list[tuple[Path, str | GradingFailed]]]:
    """Return of each template what its paths become, or why one leads nowhere; all texts together may have 8 MiB."""
    n_left = N_MAX_RENDERED
    found: list[list[tuple[Path, str | GradingFailed]]] = []
    for template in templates:
        found.append([])
        for path in paths(template):
            try:
                text = _text(path.find(sample))
                n_left -= len(text)
                if n_left < 0:
                    raise _too_long()
                found[-1].append((path, text))
            except GradingFailed as failure:
                found[-1].append((path, failure))
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def paths(template: str) -> Iterable[Path]:
    """Return the paths that a template holds."""
    return [part for part in parse(template) if isinstance(part, Path)]


def missing(templates: Iterable[str], item: Mapping[str, Any]) -> list[str]:
    """Return the paths into the item that a row does not have, as they are written."""
    row = Sample(item, {})
    lost: list[str] = []
    for template in templates:
        for path in paths(template):
            if path.namespace == "item":
                try:
                    path.find(row)
                except GradingFailed:
                    lost.append(str(path))
    return lost


def _parsed(text: str) -> str:
    if "\x00" in text:
        raise PydanticCustomError("value", "must not contain the character NUL")
    try:
        parse(text)
    except TemplateRefused as error:
        raise PydanticCustomError("value", "{why}", {"why": str(error)}) from error
    return text


#: Text that may hold paths; kept as it was written.
Template = Annotated[str, AfterValidator(_parsed)]

"""What the code lists in tables of its own, as pages: states and events, graders, rows, webhooks, figures, settings."""

import asyncio
import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import TypeAdapter

from docsite.http import Undescribed
from docsite.tables import Schemas, first_line, plain, table
from tunesmith.cli.flags import SECRET
from tunesmith.core.settings import Settings
from tunesmith.data import pairs, prompts, rows
from tunesmith.domain import events
from tunesmith.domain.sight import COUNTERS, TIMINGS, Family, Unseen
from tunesmith.domain.states import MOVES, TERMINAL, Status
from tunesmith.domain.webhook import EVENT_TYPES
from tunesmith.graders.base import Flag
from tunesmith.graders.grader import Grader
from tunesmith.services.all import Services

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
#: A sentence for each status; a new one without a sentence is an error of the build.
STATUSES: Final = {
    Status.VALIDATING_FILES: "Its files are being read, row by row.",
    Status.QUEUED: "It waits for a training slot.",
    Status.RUNNING: "It trains.",
    Status.PAUSED: "It rests at a checkpoint until it is resumed.",
    Status.SUCCEEDED: "Its model answers.",
    Status.FAILED: "`error` tells why; complete checkpoints stay.",
    Status.CANCELLED: "Its processes were killed; complete checkpoints stay.",
}


def states() -> str:
    """Return the page of statuses, moves and events."""
    order = list(Status)
    moves = [
        (
            f"`{status}`",
            STATUSES[status],
            ", ".join(f"`{each}`" for each in order if each in MOVES[status]) or "nothing else",
        )
        for status in order
    ]
    told: list[tuple[str, str]] = []
    for name, function in vars(events).items():
        if inspect.isfunction(function) and function.__annotations__.get("return") is events.NewEvent:
            if not function.__doc__:
                raise Undescribed(f"domain/events.py: {name} has no docstring")
            told.append((first_line(function.__doc__).removeprefix("Return "), _wording(inspect.getsource(function))))
    final = ", ".join(f"`{each}`" for each in order if each in TERMINAL)
    return (
        "# States and events of a job\n\nEvery change of a status is one of these moves, made by one conditional update of "
        f"the row, so two who want different things never both win. {final} are final.\n\n"
        f"## Statuses\n\n{table(('status', 'what it means', 'may become'), moves)}\n"
        "## Events\n\n`GET /v1/fine_tuning/jobs/{job_id}/events` lists them, the newest first; `type` is `message`, or "
        "`metrics` for a step, whose numbers are in `data`. `level` is `info` where nothing else is said.\n\n"
        f"{table(('it is', 'message'), told)}"
    )


def _wording(source: str) -> str:
    """Return the sentences of an event's function, with its holes in braces."""
    body = source.split('"""', 2)[2]
    level = re.search(r'level="(\w+)"', body)
    found = [text for text in re.findall(r'"((?:[^"\\]|\\.)*)"', body) if " " in text and text[0].isupper()]
    said = [re.sub(r"\{[^}]*?(\w+)[^\w}]*\}", r"{\1}", text).strip() for text in found]
    return (" or ".join(f"`{text}`" for text in said) or "the reason, in words") + (f" ({level.group(1)})" if level else "")


def graders() -> str:
    """Return the page of the schemas of graders."""
    schema = TypeAdapter(Grader).json_schema()
    shown = Schemas(schema["$defs"])
    parts = [
        "# Schemas of graders\n\nWhat each of them does is told in [Graders](../docs/graders.md). "
        "A field that is not listed is refused.\n"
    ]
    kinds = {kind: (place, shown.resolved({"$ref": place})) for kind, place in schema["discriminator"]["mapping"].items()}
    for kind, (place, found) in kinds.items():
        if not found.get("description"):
            raise Undescribed(f"the grader {kind} has no docstring")
        target = plain(place.rsplit("/", 1)[-1]).lower()
        parts.append(f"({target})=\n## {kind}\n\n{first_line(found['description'])}\n\n{shown.fields(found)}")
    rest = shown.rest("###")
    flags = "".join(f"- `{flag}`\n" for flag in get_args(Flag))
    wrong = f"## What can go wrong\n\nThe flags of `metadata.errors`:\n\n{flags}"
    return "\n".join([*parts, f"## Objects\n\n{rest}" if rest else "", wrong])


def training_rows() -> str:
    """Return the page of the forms of training files, each with a row of the examples."""
    parts = [
        "# Rows of training files\n\nOne JSON object a line. A key that is not listed is refused, but for the columns "
        f"of reinforcement rows. A file needs {rows.N_MIN_EXAMPLES} rows or more; "
        f"of reinforcement it has at most {prompts.N_MAX_TRAINING:,}, and its validation file "
        f"{prompts.N_MAX_VALIDATION:,}.\n"
    ]
    also = {"supervised": rows._KEYS, "dpo": {"input", *pairs.OLDER}, "reinforcement": prompts.RESERVED}  # pyright: ignore[reportPrivateUsage]
    folders = {"supervised": "demo", "dpo": "preferences", "reinforcement": "reinforcement"}
    for form in (rows.ChatForm, pairs.PairForm, prompts.PromptForm):
        keys = ", ".join(f"`{key}`" for key in sorted(also[form.name]))
        more = ", and any column for the grader" if form.name == "reinforcement" else ""
        row = json.loads((EXAMPLES / folders[form.name] / "training.jsonl").read_text().partition("\n")[0])
        parts.append(
            f"## {form.name}\n\n{first_line(form.__doc__ or '')} OpenAI's name for it is `{rows.FORMATS[form.name]}`.\n\n"
            f"Keys: {keys}{more}.\n\n```json\n{json.dumps(row, indent=1, ensure_ascii=False)}\n```\n"
        )
    return "\n".join(parts)


def webhooks() -> str:
    """Return the page of the events of webhooks."""
    types = "".join(f"- `{each}`\n" for each in EVENT_TYPES)
    return (
        f"# Events of webhooks\n\nHow they are sent and verified is told in [Webhooks](../docs/webhooks.md).\n\n{types}\n"
        '```json\n{"object": "event", "id": "evt_…", "type": "' + EVENT_TYPES[0] + '", "created_at": 1764150000, "data": '
        '{"id": "ftjob-…"}}\n```\n'
    )


class _Listening(Unseen):
    """Keeps the figures of a moment that it is handed."""

    def __init__(self) -> None:
        self.now: list[Family] = []

    def exposition(self, now: Iterable[Family]) -> tuple[bytes, str]:
        """Keep them."""
        self.now = list(now)
        return super().exposition(now)


def figures(services: Services) -> str:
    """Return the page of the figures of `GET /metrics`."""
    heard = _Listening()
    asyncio.run(replace(services.figures, sight=heard).exposition())
    listed: list[tuple[str, str, tuple[str, ...], str]] = [
        *((each.name, "counter", each.labels, each.told) for each in COUNTERS),
        *((each.name, "histogram", each.labels, each.told) for each in TIMINGS),
        *((each.name, each.kind, each.labels, each.told) for each in heard.now),
    ]
    told = [
        (f"`{name}`", kind, ", ".join(f"`{one}`" for one in labels), text) for name, kind, labels, text in sorted(listed)
    ]
    return (
        "# Figures of `/metrics`\n\nIn Prometheus's text format, beside those of the process that its client library adds. "
        f"[Watching a server](../docs/operations.md) tells who may read them.\n\n"
        f"{table(('name', 'kind', 'labels', 'what it is'), told)}"
    )


def settings_rows() -> list[str]:
    """Return the lines of the table of settings."""
    lines: list[str] = []
    for name, field in Settings.model_fields.items():
        if not field.description:
            raise Undescribed(f"the setting {name} has no docstring")
        flag = "" if name in SECRET else f"`--{name.replace('_', '-')}`"
        variable = field.validation_alias or f"TUNESMITH_{name.upper()}"
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `{name}` | {flag} | `{variable}` | {default} | {field.description} |")
    return lines


def with_settings(page: str) -> str:
    """Return the page of settings with the table as it is now."""
    lines = page.splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith("| `")]
    return "\n".join([*lines[: places[0]], *settings_rows(), *lines[places[-1] + 1 :], ""])


def pages(services: Services) -> dict[str, Any]:
    """Return all pages of this file by their names."""
    return {
        "states": states(), "graders": graders(), "rows": training_rows(), "webhooks": webhooks(),
        "metrics": figures(services),
    }  # fmt: skip

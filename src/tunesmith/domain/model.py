"""Base models and tuned models: rows, names, and the laws of names."""

import re
from dataclasses import dataclass, field
from typing import Final

BASE_NAME: Final = re.compile(r"^[A-Za-z0-9._-]+$")


@dataclass(frozen=True, slots=True)
class Base:
    """A registered base model: a folder in Hugging Face format, or later an upstream server."""

    name: str
    #: `embedded`, `folder` or `hub`.
    kind: str
    #: What the user gave: a folder or a hub id.
    source: str
    #: Local folder with config, tokenizer, safetensors.
    path: str
    created_at: float
    architecture: str
    context_length: int
    n_parameters: int
    weights_bytes: int
    #: sha256 of weights, tokenizer and chat template: `{"weights":…, "tokenizer":…, "template":…}`.
    pins: dict[str, str]
    aliases: list[str] = field(default_factory=list[str])
    #: `ready`, `loading` (a download is running) or `failed`; `detail` tells more.
    status: str = "ready"
    detail: str | None = None
    #: Sizes and times of the weight files when they were hashed: while they stay, the hashes need no second reading.
    fingerprint: str = ""
    #: Progress of a download; None for a folder.
    downloaded_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TunedModel:
    """A name that answers: a job's result, or one of its checkpoints."""

    name: str
    project_id: str
    organization_id: str
    job_id: str
    base: str
    created_at: float
    #: Blob prefix of the checkpoint folder that holds the adapter.
    adapter_key: str
    sha256: str
    pins: dict[str, str]
    #: None for a job's result, the step for an earlier checkpoint.
    step: int | None = None


def suffix_for_name(suffix: str) -> str:
    """Return the suffix as it stands in a model's name: runs of anything but letters, digits, `.` and `-` become one `-`."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", suffix).strip("-")


def tuned_name(model: str, slug: str, suffix: str | None, tail: str) -> str:
    """Return `ft:BASE:SLUG:SUFFIX:TAIL`; `model` is the base as the request named it, or the tuned model tuned further."""
    base = model.split(":")[1] if model.startswith("ft:") else model
    return f"ft:{base}:{slug}:{suffix_for_name(suffix or '')}:{tail}"


def checkpoint_name(model: str, slug: str, suffix: str | None, tail: str, step: int) -> str:
    """Return the name of an earlier checkpoint, `ft:…:TAIL:ckpt-step-N`."""
    return f"{tuned_name(model, slug, suffix, tail)}:ckpt-step-{step}"

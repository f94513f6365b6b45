"""Base models and tuned models: rows, names, and the laws of names."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tunesmith.core.errors import InvalidRequest

BASE_NAME: Final = re.compile(r"^[A-Za-z0-9._-]+$")
#: What a tuned model can be called besides: old names of it elsewhere, too.
ALIAS: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,254}$")


#: What a model upstream can be able to do, and how hard it can be told to think.
ABILITIES: Final = ("chat", "structured_output", "images", "audio", "embeddings")
EFFORTS: Final = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Upstream:
    """What a model upstream is where it is served, and what it was found to be able to do."""

    #: Its name there.
    model: str
    #: The variable of the server's environment that holds the key; the key itself is kept nowhere.
    key_env: str | None = None
    #: Of `ABILITIES`.
    abilities: list[str] = field(default_factory=list[str])
    #: Of `EFFORTS`: the values of `reasoning_effort` that it takes.
    efforts: list[str] = field(default_factory=list[str])
    #: What its server calls the most tokens that an answer may have.
    limit: str = "max_completion_tokens"
    #: Of a base that is tuned here and served there: the server's base URL, empty where it is one that we start, and the
    #: path under which it sees our blobs, where that is another than ours.
    url: str = ""
    adapters_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """A registered model of the server's: a folder in Hugging Face format, tuned or embedding, or a model upstream, or both:
    tuned here from its folder, and served by vLLM.
    """

    name: str
    #: `embedded`, `folder`, `hub`, `embedding`, `upstream` or `vllm`.
    kind: str
    #: What the user gave: a folder, a hub id, or the base URL of the server upstream.
    source: str
    #: Local folder with config, tokenizer, safetensors; empty, like all that is read from it, for a model upstream.
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
    #: Where another server answers for it: of the kinds `upstream` and `vllm`.
    upstream: Upstream | None = None

    @property
    def tunable(self) -> bool:
        """Whether jobs can stand on it."""
        return self.kind not in ("upstream", "embedding")

    @property
    def served_here(self) -> bool:
        """Whether a vLLM server that this server starts answers for it."""
        return self.kind == "vllm" and self.upstream is not None and not self.upstream.url

    @property
    def url(self) -> str:
        """The base URL of the server that answers for it; of a model with an `upstream`."""
        return self.upstream.url if self.upstream is not None and self.upstream.url else self.source

    @property
    def chats(self) -> bool:
        """Whether it answers chat completions."""
        return self.tunable if self.upstream is None else "chat" in self.upstream.abilities

    @property
    def embeds(self) -> bool:
        """Whether it makes embeddings."""
        return self.kind == "embedding" if self.upstream is None else "embeddings" in self.upstream.abilities


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


@dataclass(frozen=True, slots=True)
class Alias:
    """A further name of a tuned model, in its project."""

    name: str
    project_id: str
    model: str
    created_at: float


def vetted_names(name: str, aliases: Iterable[str]) -> list[str]:
    """Return a new base's name and its aliases, each once.

    Raises:
        InvalidRequest: one of them cannot be a name.
    """
    names = [name, *dict.fromkeys(aliases)]
    for number, text in enumerate(names):
        if not BASE_NAME.fullmatch(text) or not any(map(str.isalnum, text)):
            param = "aliases" if number else "name"
            raise InvalidRequest(
                f"'{text}' cannot name a base model: use letters, digits, '.', '_' and '-' only - '{param}'", param=param
            )
    return names


def suffix_for_name(suffix: str) -> str:
    """Return the suffix as it stands in a model's name: runs of anything but letters, digits, `.` and `-` become one `-`."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", suffix).strip("-")


def tuned_name(model: str, slug: str, suffix: str | None, tail: str) -> str:
    """Return `ft:BASE:SLUG:SUFFIX:TAIL`; `model` is the base as the request named it, or the tuned model tuned further."""
    base = model.split(":")[1] if model.startswith("ft:") else model.replace(":", "-")
    return f"ft:{base}:{slug}:{suffix_for_name(suffix or '')}:{tail}"


def checkpoint_name(model: str, slug: str, suffix: str | None, tail: str, step: int) -> str:
    """Return the name of an earlier checkpoint, `ft:…:TAIL:ckpt-step-N`."""
    return f"{tuned_name(model, slug, suffix, tail)}:ckpt-step-{step}"

"""Judges: the models that graders can ask, by the names that a project knows them by; and embedding models for `cosine`."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from anyio import to_thread

from tunesmith.domain.model import Base
from tunesmith.domain.ports import Endpoint, PictureRefused, Pictures, UpstreamFailed, Upstreams
from tunesmith.domain.scope import Scope
from tunesmith.graders.base import (
    GraderNotAvailable,
    GraderRefused,
    GradingFailed,
    Needs,
    Question,
    Usage,
    Verdict,
    no_embeddings,
)
from tunesmith.services.bases import Bases
from tunesmith.services.upstreams import KeyMissing, endpoint
from tunesmith.store import models
from tunesmith.store.session import Database

#: Bytes of all images of one question, and the seconds that fetching them may take.
N_MAX_IMAGE_BYTES: Final = 20 * 1024 * 1024
IMAGES_S: Final = 60.0
#: The embedding model that OpenAI's `cosine` is of: one that has this name, or this alias, is the one.
EMBEDDING_MODEL: Final = "text-embedding-3-large"
_SHOWN: Final = 500


@dataclass(frozen=True, slots=True)
class Judging:
    """The `Judge` port, for one project."""

    db: Database
    bases: Bases
    servers: Upstreams
    pictures: Pictures
    scope: Scope

    async def check(self, model: str, needs: Needs) -> None:
        """Raise `GraderRefused` when no such model can be asked, or it cannot do what is needed."""
        base = await to_thread.run_sync(self._find, model)
        if base is None:
            known = await to_thread.run_sync(self._judges)
            raise GraderRefused(
                "model",
                f"The model `{model}` does not exist or you do not have access to it. Judges here: "
                f"{', '.join(known) or 'none'}; `tunesmith models add NAME --upstream URL` adds one.",
            )
        if base.upstream is None:
            # The seam, first half: what a model of this server can do as a judge.
            raise GraderNotAvailable(
                "model",
                f"{model} is a model of this server, and as a judge that is not available in this release: its answers "
                "cannot be forced into JSON yet. `tunesmith models add NAME --upstream URL` adds a judge of another server.",
            )
        for ability, wanted, field, words in (
            ("chat", True, "model", "chat completions"),
            ("structured_output", True, "model", "structured output (`response_format` of type `json_schema`)"),
            ("images", needs.images, "input", "images"),
            ("audio", needs.audio, "input", "audio"),
        ):
            if wanted and not _can(base, ability):
                raise GraderRefused(field, f"{model} ({_what(base)}) was found not to know {words}. {_again(base)}")
        if needs.effort is not None and needs.effort not in base.upstream.efforts:
            taken = ", ".join(base.upstream.efforts) or "none at all"
            raise GraderRefused(
                "sampling_params.reasoning_effort",
                f"{model} ({_what(base)}) was found not to know the reasoning effort '{needs.effort}'; it takes: {taken}. "
                f"{_again(base)}",
            )
        try:
            _endpoint(base)
        except KeyMissing as missing:
            raise GraderRefused("model", f"{model} cannot be asked. {missing}") from missing

    async def ask(self, question: Question) -> Verdict:
        """Answer, after retries where they help.

        Raises:
            GradingFailed: with a flag of the judge's, or `other_error` for an image that is not fetched.
        """
        base = await to_thread.run_sync(self._find, question.model)
        if base is None:
            raise GradingFailed("model_grader_server_error", f"{question.model} is no model any more")
        if base.upstream is None:
            return await self._ask_here(base, question)
        sampling = dict(question.sampling)
        if "max_completion_tokens" in sampling:
            sampling[base.upstream.limit] = sampling.pop("max_completion_tokens")
        try:
            at = _endpoint(base)
            async with self.servers.turn(at):
                body = {
                    "model": base.upstream.model,
                    "messages": await self._messages(question.messages),
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": question.schema_name, "strict": True, "schema": question.schema},
                    },
                    **sampling,
                }
                answer = await self.servers.call(at, "chat/completions", body)
        except PictureRefused as refused:
            raise GradingFailed("other_error", str(refused)) from refused
        except KeyMissing as missing:
            raise GradingFailed("model_grader_server_error", str(missing)) from missing
        except UpstreamFailed as failure:
            refused = failure.code in ("content_filter", "content_policy_violation")
            flag = "model_grader_refusal_error" if refused else "model_grader_server_error"
            raise GradingFailed(flag, str(failure)) from failure
        return _verdict(answer, base.upstream.model)

    async def _ask_here(self, base: Base, question: Question) -> Verdict:
        """The seam, second half: where a model of this server will answer."""
        raise GradingFailed("model_grader_server_error", f"{question.model} is the base model {base.name}, and no judge yet")

    async def _messages(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return messages with their images fetched.

        Raises:
            PictureRefused: one is not fetched, or all together are too large or take too long.
        """
        told: list[Mapping[str, Any]] = []
        n_left = N_MAX_IMAGE_BYTES
        try:
            async with asyncio.timeout(IMAGES_S):
                for message in messages:
                    content = message["content"]
                    parts: list[dict[str, Any]] = [] if isinstance(content, str) else list(content)
                    for number, part in enumerate(parts):
                        if part["type"] == "image_url":
                            url = await self.pictures.fetch(part["image_url"]["url"], n_max_bytes=n_left)
                            n_left = max(0, n_left - len(url) * 3 // 4)
                            parts[number] = {**part, "image_url": {**part["image_url"], "url": url}}
                    told.append({**message, "content": parts or content})
        except TimeoutError as error:
            raise PictureRefused(f"The images took longer than {IMAGES_S:g} s") from error
        return told

    def _judges(self) -> list[str]:
        """Return the names that can be asked."""
        return [name for base in self.bases.list() if _can(base, "structured_output") for name in _names(base)]

    def _find(self, name: str) -> Base | None:
        """Return the base that a name stands for in the project, or that its tuned model stands on, as chat has it."""
        if "\x00" in name:  # which a database may not hold, so that nothing is called so
            return None
        with self.db.read() as tx:
            tuned = models.get(tx, self.scope, name)
        return self.bases.find(name) if tuned is None else self.bases.known(tuned.base)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The `Embedder` port: the models upstream that were found to make embeddings."""

    bases: Bases
    servers: Upstreams

    async def check(self) -> None:
        """Raise `GraderRefused` when there is no embedding model, or no telling which."""
        await to_thread.run_sync(self._chosen)

    async def similarity(self, left: str, right: str) -> float:
        """Return the cosine of two texts' embeddings, -1 to 1; an empty text has none, and is like an empty one alone.

        Raises:
            GradingFailed: `model_grader_server_error`.
        """
        if not left or not right:
            return float(left == right)
        try:
            name, model, at = await to_thread.run_sync(self._chosen)
            async with self.servers.turn(at):
                answer = await self.servers.call(at, "embeddings", {"model": model, "input": [left, right]})
        except (UpstreamFailed, GraderRefused) as failure:
            raise GradingFailed("model_grader_server_error", str(failure)) from failure
        try:
            rows = sorted(answer["data"], key=lambda row: row["index"])
            return _cosine(*(row["embedding"] for row in rows))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise GradingFailed("model_grader_server_error", f"{name} answered what are no two embeddings") from error

    def _chosen(self) -> tuple[str, str, Endpoint]:
        """Return the embedding model: the one that is called as OpenAI's, else the only one."""
        able = [base for base in self.bases.list() if _can(base, "embeddings")]
        called = [base for base in able if EMBEDDING_MODEL in _names(base)]
        chosen = called or able
        if not chosen:
            raise no_embeddings()
        if len(chosen) > 1:
            raise GraderRefused(
                "evaluation_metric",
                f"'cosine' needs one embedding model, and here are {', '.join(base.name for base in chosen)}: "
                f"`tunesmith models add {chosen[0].name} --alias {EMBEDDING_MODEL}` makes that one the one.",
            )
        (base,) = chosen
        assert base.upstream is not None
        try:
            return base.name, base.upstream.model, _endpoint(base)
        except KeyMissing as missing:
            raise GraderRefused("evaluation_metric", str(missing)) from missing


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    value = sum(a * b for a, b in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))
    if not math.isfinite(value):
        raise ValueError("the embeddings have no cosine")
    return max(-1.0, min(1.0, value))


def _endpoint(base: Base) -> Endpoint:
    return endpoint(base.source, None if base.upstream is None else base.upstream.key_env)


def _can(base: Base, ability: str) -> bool:
    return base.upstream is not None and ability in base.upstream.abilities


def _names(base: Base) -> list[str]:
    return [base.name, *base.aliases]


def _what(base: Base) -> str:
    return base.source if base.upstream is None else f"{base.upstream.model} of {base.source}"


def _again(base: Base) -> str:
    """Tell how to have a model looked at again."""
    return f"If that has changed: `tunesmith models add {base.name} --upstream {base.source}` looks at it again."


def _verdict(answer: Mapping[str, Any], model: str) -> Verdict:
    """Read a chat completion.

    Raises:
        GradingFailed: the model refused, its answer was cut off, or this is no chat completion.
    """
    try:
        choice = answer["choices"][0]
        message: Mapping[str, Any] = choice["message"]
        text, refusal, end = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise GradingFailed("model_grader_server_error", f"{model} answered what is no chat completion") from error
    named = answer.get("model")
    verdict = Verdict(
        text=text if isinstance(text, str) else "",
        model=named if isinstance(named, str) and named else model,
        usage=_usage(answer.get("usage")),
    )
    if refusal or end == "content_filter":
        reason = f": {str(refusal)[:_SHOWN]}" if refusal else " (content_filter)"
        raise GradingFailed("model_grader_refusal_error", f"{verdict.model} refused{reason}", verdict)
    if end == "length":
        details = f"{verdict.model} was cut off after {verdict.usage.completion_tokens} tokens: {verdict.text[:_SHOWN]}"
        raise GradingFailed("model_grader_exceeded_max_tokens_error", details, verdict)
    return verdict


def _usage(told: object) -> Usage:
    if not isinstance(told, dict):
        return Usage()
    usage = cast("dict[str, Any]", told)
    details = usage.get("prompt_tokens_details")
    cached = cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else 0
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"), cached)
    return Usage(*(max(0, count) if isinstance(count, int) else 0 for count in counts))

"""Judges: the models that graders can ask, by the names that a project knows them by; and embedding models for `cosine`."""

import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from anyio import to_thread

from tunesmith.core.errors import ApiError, BadGateway
from tunesmith.domain.model import Base
from tunesmith.domain.ports import Endpoint, PictureRefused, Pictures, UpstreamFailed, Upstreams
from tunesmith.domain.scope import Project
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
from tunesmith.services.chat import Answer, Chat, ChatRequest
from tunesmith.services.embeddings import Embeddings
from tunesmith.services.images import with_images
from tunesmith.services.upstreams import KeyMissing, again, can, endpoint, unable, what
from tunesmith.store import models
from tunesmith.store.session import Database

#: The embedding model that OpenAI's `cosine` is of: one that has this name, or this alias, is the one.
EMBEDDING_MODEL: Final = "text-embedding-3-large"
#: A model of this server explains itself in so many steps, of texts so long, and within so many tokens.
N_STEPS: Final = 4
N_STEP_CHARACTERS: Final = 300
N_JUDGE_TOKENS: Final = 4096
_SHOWN: Final = 500


@dataclass(frozen=True, slots=True)
class Judging:
    """The `Judge` port, for one project."""

    db: Database
    bases: Bases
    servers: Upstreams
    pictures: Pictures
    chat: Chat
    scope: Project

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
        if base.upstream is None or base.tunable:
            words = "structured output (`response_format` of type `json_schema`)"
            if base.upstream is not None and (told := unable(base, "structured_output", words, name=model)) is not None:
                raise GraderRefused("model", told)
            await self._check_here(model, needs)
            return
        for ability, wanted, field, words in (
            ("chat", True, "model", "chat completions"),
            ("structured_output", True, "model", "structured output (`response_format` of type `json_schema`)"),
            ("images", needs.images, "input", "images"),
            ("audio", needs.audio, "input", "audio"),
        ):
            if wanted and (told := unable(base, ability, words, name=model)) is not None:
                raise GraderRefused(field, told)
        if needs.effort is not None and needs.effort not in base.upstream.efforts:
            taken = ", ".join(base.upstream.efforts) or "none at all"
            raise GraderRefused(
                "sampling_params.reasoning_effort",
                f"{model} ({what(base)}) was found not to know the reasoning effort '{needs.effort}'; it takes: {taken}. "
                f"{again(base)}",
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
        if base.upstream is None or base.tunable:
            return await self._ask_here(question)
        sampling = dict(question.sampling)
        if "max_completion_tokens" in sampling:
            sampling[base.upstream.limit] = sampling.pop("max_completion_tokens")
        try:
            at = _endpoint(base)
            async with self.servers.turn(at):
                body = {
                    "model": base.upstream.model,
                    "messages": await with_images(self.pictures, question.messages),
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

    async def _check_here(self, model: str, needs: Needs) -> None:
        """Raise `GraderRefused` when a model of this server cannot answer, or is asked for more than text."""
        for field, wanted, words in (
            ("input", needs.images, "an image"),
            ("input", needs.audio, "audio"),
        ):
            if wanted:
                raise GraderNotAvailable(
                    field,
                    f"{model} is a model of this server, and {words} for those is not available in this release. "
                    "`tunesmith models add NAME --upstream URL` adds a judge of another server.",
                )
        try:
            await self.chat.check(self.scope, model, needs.effort)
        except ApiError as error:
            field = "sampling_params.reasoning_effort" if error.error_param == "reasoning_effort" else "model"
            raise GraderRefused(field, f"{model} cannot be asked. {error.message}") from error

    async def _ask_here(self, question: Question) -> Verdict:
        """Ask a model of this server, as chat completions would.

        Raises:
            GradingFailed: it cannot answer, or its answer was cut off.
        """
        sampling = question.sampling
        request = ChatRequest(
            model=question.model,
            messages=[{**message, "content": _text(message["content"])} for message in question.messages],
            max_tokens=sampling.get("max_completion_tokens", N_JUDGE_TOKENS),
            cut_to_context=True,
            temperature=sampling.get("temperature", 1.0),
            top_p=sampling.get("top_p", 1.0),
            seed=_seed(sampling.get("seed")),
            reasoning_effort=sampling.get("reasoning_effort"),
            schema=_within(question.schema),
        )
        text, end = "", None
        try:
            answer = await self.chat.answer(self.scope, request)
            async with aclosing(answer.deltas) as deltas:
                async for delta in deltas:
                    text += delta.text
                    end = delta.finish_reason or end
        except ApiError as error:
            raise GradingFailed("model_grader_server_error", f"{question.model} cannot answer. {error.message}") from error
        verdict = Verdict(text, answer.model, _spent(answer))
        if end == "length":
            details = f"{verdict.model} was cut off after {verdict.usage.completion_tokens} tokens: {text[:_SHOWN]}"
            raise GradingFailed("model_grader_exceeded_max_tokens_error", details, verdict)
        return verdict

    def _judges(self) -> list[str]:
        """Return the names that can be asked."""
        able = [
            base for base in self.bases.list() if (base.upstream is None and base.tunable) or can(base, "structured_output")
        ]
        return [name for base in able for name in _names(base)]

    def _find(self, name: str) -> Base | None:
        """Return the base that a name stands for in the project, or that its tuned model stands on, as chat has it."""
        if "\x00" in name:  # which a database may not hold, so that nothing is called so
            return None
        with self.db.read() as tx:
            tuned = models.find(tx, self.scope, name)
        return self.bases.find(name) if tuned is None else self.bases.known(tuned.base)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The `Embedder` port: the embedding models of this server, and those upstream."""

    bases: Bases
    embeddings: Embeddings

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
        name = ""
        try:
            base = await to_thread.run_sync(self._chosen)
            name = base.name
            made = await self.embeddings.ask(base, [left, right])
            return _cosine(*made.vectors)
        except (BadGateway, ValueError, ArithmeticError) as error:
            raise GradingFailed("model_grader_server_error", f"{name} answered what are no two embeddings") from error
        except ApiError as error:
            raise GradingFailed("model_grader_server_error", error.message) from error
        except (UpstreamFailed, GraderRefused, KeyMissing) as failure:
            raise GradingFailed("model_grader_server_error", str(failure)) from failure

    def _chosen(self) -> Base:
        """Return the embedding model: the one that is called as OpenAI's, else the only one."""
        able = [base for base in self.bases.list() if base.embeds]
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
        try:
            if base.upstream is not None:
                _endpoint(base)
        except KeyMissing as missing:
            raise GraderRefused("evaluation_metric", str(missing)) from missing
        return base


def _spent(answer: Answer) -> Usage:
    return Usage(answer.n_prompt_tokens, answer.n_completion_tokens, answer.n_cached_tokens)


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    value = sum(a * b for a, b in zip(left, right, strict=True)) / (math.hypot(*left) * math.hypot(*right))
    if not math.isfinite(value):
        raise ValueError("the embeddings have no cosine")
    return max(-1.0, min(1.0, value))


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """Return a message's text; parts of it are paragraphs."""
    return content if isinstance(content, str) else "\n\n".join(part["text"] for part in content)


def _seed(seed: int | None) -> int | None:
    """Return a seed as chat completions take it, of 64 bits."""
    return None if seed is None else (seed + 2**63) % 2**64 - 2**63


def _within(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a verdict with its steps few and short, that a small model comes to its result."""
    steps = schema["properties"]["steps"]
    item = steps["items"]
    words = {name: {**value, "maxLength": N_STEP_CHARACTERS} for name, value in item["properties"].items()}
    short = {**steps, "maxItems": N_STEPS, "items": {**item, "properties": words}}
    return {**schema, "properties": {**schema["properties"], "steps": short}}


def _endpoint(base: Base) -> Endpoint:
    return endpoint(base.url, None if base.upstream is None else base.upstream.key_env)


def _names(base: Base) -> list[str]:
    return [base.name, *base.aliases]


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

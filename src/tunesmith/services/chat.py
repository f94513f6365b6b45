"""Chat completions: from a model's name and messages to a stream of deltas; the doors give them their form."""

import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from anyio import to_thread

from tunesmith.core.chat import Message, Tool
from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, ModelNotFound, NotAvailable, NotFound
from tunesmith.core.ids import Ids
from tunesmith.core.tool_choice import AUTO, ToolChoice
from tunesmith.data.answers import Assembler, Delta
from tunesmith.data.folder import BrokenFolder
from tunesmith.data.thinking import Thought, n_tokens
from tunesmith.domain.model import Base, TunedModel
from tunesmith.domain.ports import Adapter, Blobs, GenerateRequest, Inference
from tunesmith.domain.scope import Project
from tunesmith.domain.sight import UNSEEN, Sight
from tunesmith.services.bases import Bases
from tunesmith.services.binding import binding, refuse_images, switched
from tunesmith.services.watching import watched
from tunesmith.store import models
from tunesmith.store.session import Database

if TYPE_CHECKING:
    from tunesmith.data.render import Renderer

#: Tokens of an answer whose length the request leaves open; less when the context ends before.
N_DEFAULT_TOKENS: Final = 4096
_N_MAX_RENDERERS: Final = 32


class UnknownModel(NotFound):
    """No base, tuned model or checkpoint of this name answers here (404 `model_not_found`)."""

    code = "model_not_found"
    param = "model"

    def __init__(self, name: str) -> None:
        way_out = f" To let this name stand for a model of this server: `tunesmith models alias MODEL {name}`"
        super().__init__(
            f"The model `{name}` does not exist or you do not have access to it.{way_out * name.startswith('ft:')}"
        )


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Tool] | None = None
    n: int = 1
    max_tokens: int | None = None
    #: None as in a request that leaves them out: 1 here, its own for a model upstream.
    temperature: float | None = None
    top_p: float | None = None
    stops: tuple[str, ...] = ()
    seed: int | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: ToolChoice = AUTO
    #: It came with `functions`, which tools replaced, and is answered with `function_call`.
    old_functions: bool = False
    #: How much to think before the answer; None leaves it to the base.
    reasoning_effort: str | None = None
    #: The JSON schema that the answer keeps to.
    schema: Mapping[str, Any] | None = None
    #: The `response_format` that asks for it, where one does.
    form: Mapping[str, Any] | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict[int, float])
    #: Deltas tell the tokens of their text, and so many of the likeliest beside each.
    logprobs: bool = False
    top_logprobs: int = 0
    #: Take fewer tokens than `max_tokens` where the context holds no more, instead of refusing.
    cut_to_context: bool = False

    @property
    def told_tools(self) -> Sequence[Tool] | None:
        """The tools that the model is told of: none where none shall be called."""
        return None if self.tool_choice.mode == "none" else self.tools


@dataclass(slots=True)
class Answer:
    """An answer under way. `deltas` starts the generation; closing it stops it at the next token."""

    id: str
    created_at: float
    model: str
    n_prompt_tokens: int
    #: Changes with the weights, the tokenizer or the template of the base, and with the adapter.
    fingerprint: str
    deltas: AsyncGenerator[Delta]
    #: Tokens sampled so far, over all choices.
    n_completion_tokens: int = 0
    #: Tokens of the prompt that had been computed before.
    n_cached_tokens: int = 0
    #: Of those sampled, the tokens of thoughts.
    n_reasoning_tokens: int = 0


class Elsewhere(Protocol):
    """Answers of models upstream."""

    async def answer(self, base: Base, request: ChatRequest, adapter: Adapter | None) -> Answer:
        """Return the answer of a model upstream, or of an adapter on it, which nobody has asked for yet.

        Raises:
            InvalidRequest: the model was found not to do what is asked for.
        """
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """A name, resolved."""

    base: Base
    adapter: Adapter | None
    renderer: "Renderer"

    @property
    def fingerprint(self) -> str:
        """Return what changes with the weights, the tokenizer or the template of the base, and with the adapter."""
        parts = [*sorted(self.base.pins.items()), self.adapter.sha256 if self.adapter is not None else ""]
        return f"fp_{hashlib.sha256(repr(parts).encode()).hexdigest()[:10]}"

    def check_biases(self, biases: Mapping[int, float]) -> None:
        """Refuse biases of tokens that the model does not have."""
        unknown = [id for id in biases if id not in self.renderer.vocabulary]
        if unknown:
            raise InvalidRequest(
                f"'logit_bias' names {', '.join(map(str, unknown[:10]))}{', …' if unknown[10:] else ''}: the vocabulary of "
                f"{self.base.name} has no such tokens. Use ids of that model's own tokenizer.",
                param="logit_bias",
            )


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request, rendered."""

    tokens: list[int]
    grammar: str | None
    thought: Thought


@dataclass(slots=True)
class Chat:
    """Answers for every model that a project sees."""

    db: Database
    bases: Bases
    blobs: Blobs
    inference: Inference
    elsewhere: Elsewhere
    clock: Clock
    ids: Ids
    sight: Sight = UNSEEN
    _renderers: "dict[tuple[str, str, str], Renderer]" = field(default_factory=dict)

    async def answer(self, scope: Project, request: ChatRequest) -> Answer:
        """Resolve the model, render the prompt and return the answer, which nobody has started to compute yet.

        Raises:
            UnknownModel: no such model in this project.
            InvalidRequest: the base is not in order, the messages cannot be rendered, or they do not fit the context.
        """
        began = self.clock.monotonic()
        base, adapter = await to_thread.run_sync(self.named, scope, request.model)
        if base.upstream is None:
            answer = await self._here(scope, base, request, adapter)
        else:
            answer = await self.elsewhere.answer(base, request, adapter)
        answer.deltas = watched(answer.deltas, answer, self.sight, self.clock, base=base.name, began=began)
        return answer

    async def _here(self, scope: Project, base: Base, request: ChatRequest, adapter: Adapter | None) -> Answer:
        """Return the answer of a base that is resident here, or of an adapter on it."""
        served, prompt = await to_thread.run_sync(self._prepare, base, adapter, request)
        generate = GenerateRequest(
            prompt=prompt.tokens,
            n=request.n,
            max_tokens=_n_tokens(served.base, request, len(prompt.tokens), thinks=prompt.thought is not Thought.NO),
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed,
            stop_ids=served.renderer.stop_ids,
            adapter=served.adapter,
            grammar=prompt.grammar,
            project=scope.project_id,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            logit_bias=request.logit_bias,
            top_logprobs=request.top_logprobs,
        )
        answer = Answer(
            id=self.ids.chat(),
            created_at=self.clock.now(),
            model=request.model,
            n_prompt_tokens=len(prompt.tokens),
            fingerprint=served.fingerprint,
            deltas=_nothing(),
        )
        answer.deltas = self._deltas(served, request, generate, answer, prompt.thought)
        return answer

    async def _deltas(
        self, served: Served, request: ChatRequest, generate: GenerateRequest, answer: Answer, thought: Thought
    ) -> AsyncGenerator[Delta]:
        with_tools = bool(request.told_tools)
        shows_special = with_tools or thought is not Thought.NO
        vocabulary = served.renderer.vocabulary
        assemblers = [
            Assembler(
                index,
                served.renderer.stream(skip_special_tokens=not shows_special),
                request.stops,
                with_tools=with_tools,
                one_call=request.parallel_tool_calls is False,
                named=request.tool_choice.named,
                bare=() if request.schema is not None else served.renderer.bare_calls(request.tools, request.tool_choice),
                thought=thought,
                ids=self.ids,
            )
            for index in range(request.n)
        ]
        try:
            async with aclosing(self.inference.stream(served.base.path, generate)) as tokens:
                async for sampled in tokens:
                    answer.n_cached_tokens = max(answer.n_cached_tokens, sampled.cached)
                    assembler = assemblers[sampled.index]
                    if not assembler.finished:
                        answer.n_completion_tokens += 1
                    is_stop = sampled.token in generate.stop_ids
                    scored = None
                    if request.logprobs and not is_stop and (shows_special or sampled.token not in vocabulary.special):
                        scored = vocabulary.scored(sampled.token, sampled.logprob, sampled.top)
                    deltas = assembler.feed(sampled.token, sampled.finish, is_stop=is_stop, scored=scored)
                    answer.n_reasoning_tokens = sum(each.n_reasoning for each in assemblers)
                    for delta in deltas:
                        yield delta
                    # A stop string ends a sample before the sampler does: when it was the last one, leave.
                    if all(each.finished for each in assemblers):
                        return
        except InvalidRequest as error:
            if error.error_param == "response_format" and request.schema is None:
                error.error_param = "tools"  # the sampler does not know whose schema it cannot keep to
            raise

    async def check(self, scope: Project, name: str, effort: str | None = None) -> None:
        """Raise what `answer` would of the model, and of how much it is to think, without asking it for anything."""
        base, _ = await to_thread.run_sync(self.named, scope, name)
        if base.upstream is None:
            switched(await to_thread.run_sync(self._renderer, base), name, effort)

    def served(self, scope: Project, name: str, what: str) -> Served:
        """Return what a name stands for, with its tokenizer; raises what `answer` would of it.

        Raises:
            NotAvailable: it is a model upstream, whose tokenizer is not here; `what` says what it is needed for.
        """
        base, adapter = self.named(scope, name)
        if base.upstream is not None:
            raise NotAvailable(
                f"{name} is a model of the server {base.url}: {what} is not passed on to it in this release. Use chat "
                "completions, or ask that server itself.",
                param="model",
            )
        return self.here(base, adapter)

    def here(self, base: Base, adapter: Adapter | None) -> Served:
        """Return a base of this server, and what was tuned on it, with its tokenizer; raises what `answer` would of it."""
        return Served(base, adapter, self._renderer(base))

    def _prepare(self, base: Base, adapter: Adapter | None, request: ChatRequest) -> tuple[Served, _Prompt]:
        from tunesmith.data.render import RenderError  # noqa: PLC0415 - as in _renderer

        served = self.here(base, adapter)
        served.check_biases(request.logit_bias)
        refuse_images(request.model, request.messages)
        thinks = switched(served.renderer, request.model, request.reasoning_effort)
        try:
            tokens = served.renderer.prompt(
                request.messages, request.told_tools, parallel_tool_calls=request.parallel_tool_calls, thinking=thinks
            )
        except RenderError as error:
            raise InvalidRequest(f"The messages cannot be rendered: {error}", param="messages") from error
        thought = served.renderer.thought(tokens, thinks)
        grammar = binding(
            served.renderer,
            request.tools,
            request.tool_choice,
            one_call=request.parallel_tool_calls is False,
            schema=request.schema,
            thought=thought,
        )
        return served, _Prompt(tokens, grammar, thought)

    def named(self, scope: Project, name: str) -> tuple[Base, Adapter | None]:
        """Return what a name stands for: a base that is in order, and the adapter on it.

        Raises:
            UnknownModel: no such model in this project.
            InvalidRequest: the base is not in order, or does not chat.
        """
        with self.db.read() as tx:
            tuned = models.find(tx, scope, name)
        if tuned is None:
            base = self.bases.find(name)
            if base is None:
                raise UnknownModel(name)
            if base.kind == "embedding":
                raise InvalidRequest(
                    f"{name} is an embedding model: ask it by /v1/embeddings. It does not chat.", param="model"
                )
            return base if base.upstream is not None else self.bases.intact(base), None
        try:
            base = self.bases.get(tuned.base)
            base = base if base.upstream is not None else self.bases.intact(base)
        except ModelNotFound as error:
            raise InvalidRequest(
                f"{name} was tuned on the base model {tuned.base}, which was removed. Add it again: "
                f"`tunesmith models add {tuned.base} SOURCE`.",
                param="model",
            ) from error
        _check_pins(tuned, base)
        return base, Adapter(tuned.name, str(self.blobs.path(tuned.adapter_key)), tuned.sha256)

    def _renderer(self, base: Base) -> "Renderer":
        from tunesmith.data.render import Renderer  # noqa: PLC0415 - a server that starts need not wait for tokenizers

        key = (base.path, base.pins.get("tokenizer", ""), base.pins.get("template", ""))
        known = self._renderers.get(key)
        if known is not None:
            return known
        try:
            renderer = Renderer.load(Path(base.path), self.clock)
        except BrokenFolder as error:
            raise InvalidRequest(f"The base model {base.name} cannot be used: {error}", param="model") from error
        if (renderer.tokenizer_sha256, renderer.template_sha256) != key[1:]:
            raise InvalidRequest(
                f"The base model {base.name} cannot be used: the tokenizer or the template in {base.path} is not the one "
                "that it was added with. Bring that back, or add the new one under another name.",
                param="model",
            )
        if len(self._renderers) >= _N_MAX_RENDERERS:
            self._renderers.pop(next(iter(self._renderers)))
        self._renderers[key] = renderer
        return renderer


def _check_pins(tuned: TunedModel, base: Base) -> None:
    """Refuse to serve an adapter on anything but what it was trained on."""
    changed = sorted(part for part, digest in tuned.pins.items() if base.pins.get(part) != digest)
    if changed:
        raise InvalidRequest(
            f"{tuned.name} was tuned on another {' and '.join(changed)} than the base model {base.name} has now, and would "
            "answer wrongly on it. Bring the files that it was tuned on back.",
            param="model",
        )


def _n_tokens(base: Base, request: ChatRequest, n_prompt: int, *, thinks: bool) -> int:
    """Return the most tokens that an answer may have.

    Raises:
        InvalidRequest: prompt and answer do not fit the context (`context_length_exceeded`).
    """
    room = base.context_length - n_prompt
    wanted = request.max_tokens
    if wanted is not None and request.cut_to_context:
        wanted = min(wanted, max(room, 1))
    if room < 1 or (wanted is not None and wanted > room):
        asked = f" and {wanted} in the completion" if wanted is not None else ""
        raise InvalidRequest(
            f"This model's maximum context length is {base.context_length} tokens. However, your messages resulted in "
            f"{n_prompt} tokens{asked}. Please reduce the length of the messages or completion.",
            param="messages",
            code="context_length_exceeded",
        )
    if wanted is not None:
        return wanted
    effort = request.reasoning_effort
    return min(room, n_tokens(effort, thinks=True, context_length=room) if thinks and effort else N_DEFAULT_TOKENS)


async def _nothing() -> AsyncGenerator[Delta]:
    return
    yield

"""The request body of bare completions: every field does its work, is without effect, or is refused by name."""

from typing import Annotated, Final, TypeAlias

from pydantic import Field

from tunesmith.api.chat_schema import StreamOptions, refuse_broken, stop_strings, token_biases
from tunesmith.api.wire import Text, WireRequest, shown
from tunesmith.core.errors import InvalidRequest, NotAvailable
from tunesmith.services.completions import CompletionRequest

#: Prompts of one request, and choices of all of them.
N_MAX_PROMPTS: Final = 2048
#: The one field that steers OpenAI's own operation.
WITHOUT_EFFECT: Final = frozenset({"user"})

Tokens: TypeAlias = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Prompts: TypeAlias = Annotated[list[str], Field(min_length=1)] | Annotated[list[Tokens], Field(min_length=1)]


class CreateCompletion(WireRequest):
    """The body of `POST /v1/completions`, every field of the contract."""

    model: Text
    #: Null is the begin of a document.
    prompt: str | Tokens | Prompts | None
    best_of: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    suffix: str | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    user: str | None = None

    def checked(self) -> CompletionRequest:
        """Return the request for the service.

        Raises:
            NotAvailable: `suffix` asks for what no model here does.
            InvalidRequest: fields contradict one another.
        """
        if self.suffix:
            raise NotAvailable(
                f"'suffix' {shown(self.suffix)} is not available in this release, whose models write only onward: leave it "
                "out, or write it into the prompt in the form in which the model has learnt to fill a gap.",
                param="suffix",
            )
        prompts = self._prompts()
        n = self.n or 1
        self._check_together(len(prompts), n)
        return CompletionRequest(
            model=self.model,
            prompts=prompts,
            n=n,
            best_of=n if self.best_of is None else self.best_of,
            max_tokens=16 if self.max_tokens is None else self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            stops=stop_strings(self.stop),
            seed=self.seed,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=token_biases(self.logit_bias),
            logprobs=self.logprobs,
            echo=bool(self.echo),
        )

    def _prompts(self) -> list[str | list[int]]:
        for name in ("prompt", "stop"):
            refuse_broken(name, getattr(self, name))
        prompt = "" if self.prompt is None else self.prompt
        if isinstance(prompt, str):
            return [prompt]
        tokens = [each for each in prompt if isinstance(each, int)]
        return [tokens] if tokens else [each for each in prompt if not isinstance(each, int)]

    def _check_together(self, n_prompts: int, n: int) -> None:
        if n_prompts * n > N_MAX_PROMPTS:
            raise InvalidRequest(
                f"'prompt' holds {n_prompts} prompts, for {n_prompts * n} choices: one request may have {N_MAX_PROMPTS}. "
                "Send several requests.",
                param="prompt",
            )
        if self.best_of is not None and self.best_of < n:
            raise InvalidRequest(f"'best_of' {self.best_of} must not be less than 'n', which is {n}.", param="best_of")
        if self.stream and self.best_of is not None and self.best_of > n:
            raise InvalidRequest(
                "'best_of' greater than 'n' is known only at the end, so it cannot be streamed: leave it or 'stream' out.",
                param="best_of",
            )
        if self.max_tokens == 0 and not self.echo:
            raise InvalidRequest("'max_tokens' 0 asks for nothing without 'echo': true.", param="max_tokens")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest("'stream_options' is only for 'stream': true.", param="stream_options")

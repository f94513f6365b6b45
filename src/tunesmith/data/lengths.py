"""What a row of each method asks of the base: the texts it is rendered to, and whether they fit the base's context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tunesmith.data.pairs import NON_PREFERRED, PREFERRED, Pair, conversations
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Measure, Renderer, RenderError
from tunesmith.data.rows import Row
from tunesmith.data.spans import Draft
from tunesmith.data.thinking import thinking

#: Tokens that the shortest answer worth sampling has room for.
N_MIN_ANSWER: Final = 16
#: Bases that are named as a way out.
_N_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Context:
    """The base's context, as messages tell it."""

    n_tokens: int
    base: str
    #: Contexts by name of the bases that hold longer rows.
    longer: Mapping[str, int]

    def way_out(self) -> str:
        """Name the bases that hold longer rows, or how to get one."""
        longer = list(self.longer.items())[:_N_SHOWN]
        if not longer:
            return "For longer rows, register a base with a longer context (tunesmith models add NAME SOURCE) and use it."
        return f"For longer rows, use {' or '.join(f'{name} ({n_tokens:,} tokens)' for name, n_tokens in longer)}."

    def nothing(self, n_whole: int, *, what: str, left_out: str) -> str:
        """Say why a rendered text of so many tokens trains on nothing."""
        if n_whole <= self.n_tokens:
            return f"trains on nothing: the base's chat template leaves {left_out} out"
        return (
            f"trains on nothing: {what} {n_whole:,} tokens, the context of {self.base} has {self.n_tokens:,}, and what is "
            f"trained lies behind its end. {self.way_out()}"
        )


class Needs(Protocol):
    """A method's rows, as drafts and as what is wrong with them."""

    def drafts(self, row: Any, /) -> list[Draft]:
        """Return the texts of a row.

        Raises:
            RenderError: the base's chat template refuses it.
        """
        ...

    def problem(self, row: Any, drafts: Sequence[Draft], measures: Sequence[Measure], /) -> str | None:
        """Return what is wrong with a row's texts, None when nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class ChatNeeds:
    """Supervised: something that is trained must be left within the context."""

    renderer: Renderer
    context: Context

    def drafts(self, row: Row) -> list[Draft]:
        """Return the chat, or each trained turn of it."""
        return self.renderer.drafts(row.messages, row.tools, row.parallel_tool_calls)

    def problem(self, row: Row, drafts: Sequence[Draft], measures: Sequence[Measure]) -> str | None:  # noqa: ARG002
        """Say that nothing is trained, if so."""
        if any(measure.n_trained for measure in measures):
            return None
        n_whole = max(measure.n_whole for measure in measures)
        return self.context.nothing(n_whole, what="the row has", left_out="its assistant messages")


@dataclass(frozen=True, slots=True)
class PairNeeds:
    """Preferences: of both answers something must be left within the context, and not the same."""

    renderer: Renderer
    context: Context

    def drafts(self, row: Pair) -> list[Draft]:
        """Return the input with the preferred answer, and with the other one."""
        return [
            self._draft(row, name, conversation)
            for name, conversation in zip((PREFERRED, NON_PREFERRED), conversations(row), strict=True)
        ]

    def _draft(self, row: Pair, name: str, conversation: Any) -> Draft:
        try:
            (draft,) = self.renderer.drafts(*conversation)
        except RenderError as error:
            if error.message_number is None or error.message_number <= len(row.messages):
                raise
            raise RenderError(f"{name}: {error.reason}") from error
        return draft

    def problem(self, row: Pair, drafts: Sequence[Draft], measures: Sequence[Measure]) -> str | None:  # noqa: ARG002
        """Say of which answer nothing is trained, or that both are the same."""
        for name, measure in zip((PREFERRED, NON_PREFERRED), measures, strict=True):
            if not measure.n_trained:
                reason = self.context.nothing(measure.n_whole, what="the input and this answer have", left_out="it")
                return f"{name} {reason}"
        if len({draft.text for draft in drafts}) == 1:
            return "both answers are the same once the base's chat template has rendered them: there is nothing to prefer"
        if all(measure.n_whole > self.context.n_tokens for measure in measures):
            preferred, other = self.renderer.encode(drafts, max_tokens=self.context.n_tokens)
            if preferred.tokens == other.tokens:
                n_tokens = " and ".join(f"{measure.n_whole:,}" for measure in measures)
                return (
                    f"with the input both answers have {n_tokens} tokens, the context of {self.context.base} has "
                    f"{self.context.n_tokens:,}, and they differ behind its end alone. {self.context.way_out()}"
                )
        return None


@dataclass(frozen=True, slots=True)
class PromptNeeds:
    """Reinforcement: a prompt must be whole, and leave room for an answer."""

    renderer: Renderer
    context: Context
    #: Whether the base is to think before it answers, None as its template has it.
    thinking: bool | None

    def drafts(self, row: PromptRow) -> list[Draft]:
        """Return the prompt."""
        parallel = row.parallel_tool_calls
        return [self.renderer.prompt_draft(row.messages, row.tools, parallel_tool_calls=parallel, thinking=self.thinking)]

    def problem(self, row: PromptRow, drafts: Sequence[Draft], measures: Sequence[Measure]) -> str | None:  # noqa: ARG002
        """Say that there is no room, if so."""
        (measure,) = measures
        if measure.n_whole + N_MIN_ANSWER <= self.context.n_tokens:
            return None
        return (
            f"the prompt has {measure.n_whole:,} tokens, the context of {self.context.base} has {self.context.n_tokens:,}, "
            f"and an answer needs room for at least {N_MIN_ANSWER}. {self.context.way_out()}"
        )


def needs(method: str, config: Mapping[str, Any], renderer: Renderer, context: Context) -> Needs:
    """Return what the rows of a method ask for.

    Raises:
        ValueError: there is no such method.
    """
    match method:
        case "supervised":
            return ChatNeeds(renderer, context)
        case "dpo":
            return PairNeeds(renderer, context)
        case "reinforcement":
            effort = (config.get("hyperparameters") or {}).get("reasoning_effort") or "default"
            return PromptNeeds(renderer, context, thinking(effort))
        case _:
            raise ValueError(f"rows of the method {method!r} cannot be validated")

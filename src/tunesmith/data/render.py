"""The one renderer that training, validation and chat share: messages to token ids, and which of them are trained.

It stands on `tokenizers` and the sandboxed template alone. What an assistant said is found by the template's own
`{% generation %}` blocks, else by comparing rendered prefixes; `data/spans.py` decides. Characters become tokens by the
tokenizer's offsets: a token belongs to a span when its first character lies in it. Several tokens of one character (byte
fallback) share that character's offsets and so go together; a token that begins before a span is context.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from tunesmith.core.chat import Message, Tool
from tunesmith.core.clock import Clock, SystemClock
from tunesmith.core.tool_choice import AUTO, ToolChoice
from tunesmith.data.calls import CALL, CallForm
from tunesmith.data.control import ControlTokens, Encoded
from tunesmith.data.folder import TOKENIZER, TOKENIZER_CONFIG, BrokenFolder, chat_template
from tunesmith.data.spans import Conversations, Draft, RenderError
from tunesmith.data.template import BrokenTemplate, ChatTemplate
from tunesmith.data.thinking import THINK, Thought
from tunesmith.data.vocabulary import Vocabulary

__all__ = ["Conversation", "Example", "RenderError", "Renderer"]

#: Messages, tools, and the row's `parallel_tool_calls`.
Conversation = tuple[Sequence[Message], Sequence[Tool] | None, bool | None]

_SPECIAL_TOKENS_MAP: Final = "special_tokens_map.json"
_GENERATION_CONFIG: Final = "generation_config.json"
_MODEL_CONFIG: Final = "config.json"
#: Tokens after a span's end-of-turn token that a template adds for the next turn, at most.
_N_MAX_TAIL: Final = 4
#: Tokens of a prompt that say how its continuation is written: whether a space is one, which bytes wait for others.
_N_TAIL: Final = 8
#: Characters of a text that are tokenized in any case.
_N_MAX_CHARS: Final = 1_000_000
#: The variable by which templates of bases that think are told whether to.
_THINKING: Final = "enable_thinking"
#: Tokens at the end of a prompt in which the mark of a thought would be, letter by letter at the worst.
_N_LOOKED_AT: Final = 16


@dataclass(frozen=True, slots=True)
class Example:
    """One sequence to train on: `weights[i]` is the weight of predicting `tokens[i]`, 0 for context."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    #: The sequence was longer and lost its end.
    truncated: bool

    @property
    def n_trained(self) -> int:
        """Tokens whose prediction is trained."""
        return sum(1 for weight in self.weights if weight)


@dataclass(frozen=True, slots=True)
class Measure:
    """What an example would count, without its tokens."""

    #: Tokens after truncation, and how many of them are trained.
    n_tokens: int
    n_trained: int
    #: Tokens before truncation; a lower bound for texts of more than a million characters.
    n_whole: int


class Renderer:
    """A base model's tokenizer and chat template; safe to use from several threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        eos_ids: Iterable[int],
        *,
        start_id: int | None,
        pins: tuple[str, str],
    ) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._start_id = start_id
        self._control = ControlTokens(tokenizer)
        self._conversations = Conversations(template, self._control.mark)
        self.template = template
        #: sha256 of `tokenizer.json` and of the template's text, as a job pins them.
        self.tokenizer_sha256, self.template_sha256 = pins
        self.vocabulary = Vocabulary(tokenizer)
        self.vocab_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self._n_longest_token = max(map(len, tokenizer.get_vocab(with_added_tokens=True)), default=1)
        end_of_turn = self._end_of_turn()
        #: Ids that end an answer: the model's end-of-sequence ids and the token with which the template ends a turn.
        self.stop_ids: frozenset[int] = frozenset(eos_ids) | ({end_of_turn} if end_of_turn is not None else set())

    @classmethod
    def load(cls, folder: Path | str, clock: Clock | None = None) -> "Renderer":
        """Read the tokenizer, the template and the special tokens of a model folder in Hugging Face format.

        `clock` tells the date to templates that print it; give a fixed one where the same text must come out tomorrow.

        Raises:
            BrokenFolder: a file is absent or malformed, or there is no chat template.
        """
        folder = Path(folder)
        source = chat_template(folder)
        if source is None:
            raise BrokenFolder(
                f"{folder} has no chat template. Put the model's chat_template.jinja there, or take the instruct variant."
            )
        try:
            raw = (folder / TOKENIZER).read_bytes()
            tokenizer = Tokenizer.from_str(raw.decode())
        except OSError as error:
            raise BrokenFolder(f"{folder / TOKENIZER} cannot be read: {error}") from error
        except Exception as error:  # tokenizers raises no class of its own
            raise BrokenFolder(f"{folder / TOKENIZER} is not a tokenizer: {error}") from error
        special = _special_tokens(folder)
        try:
            template = ChatTemplate(source, special, clock or SystemClock())
        except BrokenTemplate as error:
            raise BrokenFolder(f"{folder}: {error}") from error
        pins = hashlib.sha256(raw).hexdigest(), hashlib.sha256(source.encode()).hexdigest()
        start = special.get("bos_token") or special.get("eos_token")
        start_id = tokenizer.token_to_id(start) if start else None
        return cls(tokenizer, template, _eos_ids(folder, tokenizer, special.get("eos_token")), start_id=start_id, pins=pins)

    @property
    def switches_thinking(self) -> bool:
        """The template has a switch for thinking before the answer (`enable_thinking`)."""
        return _THINKING in self.template.source

    def thinks(self, thinking: bool | None = None) -> bool:
        """Say whether answers may begin with a thought, with the switch so; without one, whether the template knows any."""
        return thinking is not False if self.switches_thinking else THINK in self.template.source

    def thought(self, prompt: Sequence[int], thinking: bool | None = None) -> Thought:
        """Return where the answer to a prompt begins, which was rendered with the switch so."""
        if not self.thinks(thinking):
            return Thought.NO
        end = self.decode(prompt[-_N_LOOKED_AT:], skip_special_tokens=False).rstrip()
        return Thought.WITHIN if end.endswith(THINK) else Thought.MAYBE

    @property
    def call_form(self) -> CallForm:
        """How the template writes tool calls."""
        return self._conversations.call_form

    def bare_calls(self, tools: Sequence[Tool] | None, choice: ToolChoice = AUTO) -> list[str]:
        """Return the functions that an answer may call without a mark, as the template writes calls."""
        if CALL in self.template.source or choice.mode != "auto":
            return []
        return [name for tool in tools or () if choice.allows(name := tool["function"]["name"])]

    def token_id(self, text: str) -> int | None:
        """Return the id of the one token that a text is, None where it is several."""
        return self._tokenizer.token_to_id(text)

    def prompt(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        parallel_tool_calls: bool | None = None,
        thinking: bool | None = None,
    ) -> list[int]:
        """Return the tokens that the assistant's next turn follows.

        `thinking` turns the template's switch, where it has one; None leaves it as the template has it.

        Raises:
            RenderError: the template refuses the conversation.
        """
        draft = self.prompt_draft(messages, tools, parallel_tool_calls=parallel_tool_calls, thinking=thinking)
        return self._encoded([draft.text])[0].ids

    def prompt_draft(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        parallel_tool_calls: bool | None = None,
        thinking: bool | None = None,
    ) -> Draft:
        """Return the text of a prompt, nothing of it to train on, for `measure`.

        Raises:
            RenderError: the template refuses the conversation.
        """
        extra = _extra(parallel_tool_calls)
        if thinking is not None and self.switches_thinking:
            extra[_THINKING] = thinking
        return Draft(self._conversations.prompt(messages, tools or None, extra), (), by_prefix=False)

    def examples(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] | None = None,
        *,
        max_tokens: int,
        parallel_tool_calls: bool | None = None,
    ) -> list[Example]:
        """Return what to train on: one example, or one per trained turn where the template rewrites earlier turns.

        Longer sequences lose their end. The list is empty when every assistant message has weight 0, and an example may
        have no trained token left after truncation.

        Raises:
            RenderError: the template refuses the conversation.
        """
        return self.examples_of([(messages, tools, parallel_tool_calls)], max_tokens=max_tokens)[0]

    def examples_of(self, conversations: Iterable[Conversation], *, max_tokens: int) -> list[list[Example]]:
        """Return the examples of each conversation; the tokenizer works on all of them at once.

        Raises:
            RenderError: the template refuses one of the conversations.
        """
        drafts = [self.drafts(*conversation) for conversation in conversations]
        flat = iter(self.encode([draft for row in drafts for draft in row], max_tokens=max_tokens))
        return [[next(flat) for _ in row] for row in drafts]

    def drafts(
        self, messages: Sequence[Message], tools: Sequence[Tool] | None = None, parallel_tool_calls: bool | None = None
    ) -> list[Draft]:
        """Return the texts of a conversation's examples; `encode` turns them into tokens.

        Raises:
            RenderError: the template refuses the conversation.
        """
        return self._conversations.drafts(messages, tools or None, _extra(parallel_tool_calls))

    def encode(self, drafts: Sequence[Draft], *, max_tokens: int) -> list[Example]:
        """Turn drafts into examples of at most `max_tokens` tokens."""
        encodings = self._encodings(drafts, max_tokens)
        return [self._example(draft, encoding, max_tokens) for draft, encoding in zip(drafts, encodings, strict=True)]

    def measure(self, drafts: Sequence[Draft], *, max_tokens: int) -> list[Measure]:
        """Count what `encode` would return."""
        encodings = self._encodings(drafts, max_tokens)
        return [self._measure(draft, encoding, max_tokens) for draft, encoding in zip(drafts, encodings, strict=True)]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of token ids."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def stream(self, *, skip_special_tokens: bool = True, after: Sequence[int] = ()) -> "TextStream":
        """Return a decoder that is fed one id at a time; what it says goes on from the tokens `after`."""
        return TextStream(self._tokenizer, skip_special_tokens, after)

    def bare(self, text: str) -> tuple[list[int], int]:
        """Return the tokens of a text without a template, and how many the tokenizer put before it.

        Control tokens in it are what they are. A text of no tokens is the token that begins documents, where there is one.
        """
        encoding = self._tokenizer.encode(text, add_special_tokens=True)
        mask = encoding.special_tokens_mask
        first = next((place for place, added in enumerate(mask) if not added), len(mask))
        ids = encoding.ids[: len(mask) - next((n for n, added in enumerate(reversed(mask)) if not added), 0)]
        if ids:
            return ids, first
        return ([], 0) if self._start_id is None else ([self._start_id], 1)

    def _encodings(self, drafts: Sequence[Draft], max_tokens: int) -> Sequence[Encoded]:
        """Tokenize; of a text that is far longer than what is kept only the beginning, so that memory stays in bounds."""
        n_chars = max(_N_MAX_CHARS, (max_tokens + 8) * self._n_longest_token)
        return self._encoded([draft.text if len(draft.text) <= n_chars else draft.text[:n_chars] for draft in drafts])

    def _encoded(self, texts: list[str]) -> Sequence[Encoded]:
        marked = {index for index, text in enumerate(texts) if self._control.is_marked(text)}
        ordinary = [text for index, text in enumerate(texts) if index not in marked] if marked else texts
        encodings = self._tokenizer.encode_batch(ordinary, add_special_tokens=False)
        if not marked:
            return encodings
        rest = iter(encodings)
        return [self._control.encode(text) if index in marked else next(rest) for index, text in enumerate(texts)]

    def _example(self, draft: Draft, encoding: Encoded, max_tokens: int) -> Example:
        ids = encoding.ids
        weights = [0.0] * len(ids)
        for first, last in self._trained(draft, encoding, ids):
            weights[first:last] = [1.0] * (last - first)
        return Example(tuple(ids[:max_tokens]), tuple(weights[:max_tokens]), truncated=len(ids) > max_tokens)

    def _measure(self, draft: Draft, encoding: Encoded, max_tokens: int) -> Measure:
        ids = encoding.ids
        ranges = self._trained(draft, encoding, ids)
        n_trained = sum(max(0, min(last, max_tokens) - first) for first, last in ranges)
        return Measure(min(len(ids), max_tokens), n_trained, len(ids))

    def _trained(self, draft: Draft, encoding: Encoded, ids: list[int]) -> list[tuple[int, int]]:
        """Return the ranges of trained tokens; the first token is never in one: nothing precedes it to predict it from."""
        ranges: list[tuple[int, int]] = []
        for start, end in draft.spans:
            first, last = _first_token(encoding, start), _first_token(encoding, end)
            first, last = self._fit_end(ids, first, last, by_prefix=draft.by_prefix)
            if last > max(first, 1):
                ranges.append((max(first, 1), last))
        return ranges

    def _fit_end(self, ids: list[int], first: int, last: int, *, by_prefix: bool) -> tuple[int, int]:
        """Let a span end with the token that ends the turn, so that a tuned model learns to stop and nothing behind it.

        A span found by prefixes may hold what the template writes behind that token (a newline): it is cut. A span may also
        end just before that token (a generation block that leaves it out, a turn that the next turn's opening ends): it is
        taken in.
        """
        if by_prefix:
            for index in range(max(first, last - 1 - _N_MAX_TAIL), last):
                if ids[index] in self.stop_ids:
                    return first, index + 1
        if first < last < len(ids) and ids[last - 1] not in self.stop_ids and ids[last] in self.stop_ids:
            return first, last + 1
        return first, last

    def _end_of_turn(self) -> int | None:
        """Return the special token with which the template ends an assistant's turn, or None."""
        special = {id for id, token in self._tokenizer.get_added_tokens_decoder().items() if token.special}
        text = self._conversations.after_turn()
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids if text else []
        return next((id for id in ids if id in special), None)


class TextStream:
    """Turns ids into text as they come, holding back bytes that do not make a whole character yet."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        tail = list(after[-_N_TAIL:])
        # The decoder takes whole characters as said, and would say a beginning of one over again.
        n_whole = next((n for n in range(len(tail), 0, -1) if not tokenizer.decode(tail[:n]).endswith("\ufffd")), 0)
        self._stream = DecodeStream(ids=tail[:n_whole], skip_special_tokens=skip_special_tokens)
        for id in tail[n_whole:]:
            self.step(id)

    def step(self, id: int) -> str:
        """Return the text that `id` completes, empty while a character is unfinished."""
        return self._stream.step(self._tokenizer, id) or ""


def _first_token(encoding: Encoded, position: int) -> int:
    """Return the index of the first token that begins at or after a character, the number of tokens if there is none."""
    index = encoding.char_to_token(position)
    chars = None if index is None else encoding.token_to_chars(index)
    if index is not None and chars is not None:
        return index if chars[0] >= position else index + 1
    return next((i for i, (start, end) in enumerate(encoding.offsets) if start >= position and end > start), len(encoding))


def _extra(parallel_tool_calls: bool | None) -> dict[str, Any]:
    return {} if parallel_tool_calls is None else {"parallel_tool_calls": parallel_tool_calls}


def _special_tokens(folder: Path) -> dict[str, str]:
    """Return `bos_token`, `eos_token` and whatever else the tokenizer's configuration names so."""
    named: dict[str, str] = {}
    for file in (_SPECIAL_TOKENS_MAP, TOKENIZER_CONFIG):
        for key, value in _json(folder / file).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                named[key] = text
    return named


def _eos_ids(folder: Path, tokenizer: Tokenizer, eos_token: str | None) -> set[int]:
    ids: set[int] = set()
    for file in (_GENERATION_CONFIG, _MODEL_CONFIG):
        value = _json(folder / file).get("eos_token_id")
        ids.update(item for item in (value if isinstance(value, list) else [value]) if isinstance(item, int))
    eos_id = tokenizer.token_to_id(eos_token) if eos_token else None
    return ids if eos_id is None else ids | {eos_id}


def _json(file: Path) -> dict[str, Any]:
    """Return a JSON object's content, empty for an absent file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BrokenFolder(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BrokenFolder(f"{file} is not a JSON object.")
    return content

"""Responses: conversations that the server remembers, on top of chat: what came before, what is sent, what is kept of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from anyio import to_thread

from tunesmith.core.chat import Message
from tunesmith.core.clock import Clock
from tunesmith.core.errors import InvalidRequest, NotAvailable, NotFound, StateConflict
from tunesmith.core.failpoint import failpoint
from tunesmith.core.ids import Ids
from tunesmith.core.settings import Settings
from tunesmith.data.items import Item, messages_of
from tunesmith.domain.response import StoredResponse
from tunesmith.domain.scope import Everywhere, Project
from tunesmith.services.chat import Answer, Chat, ChatRequest
from tunesmith.services.completions_kept import part_of
from tunesmith.services.idempotency import Also
from tunesmith.store import responses
from tunesmith.store.session import Database

DAY_S: Final = 24 * 3600.0
N_SWEPT: Final = 1000
TOO_LONG: Final = "context_length_exceeded"
#: What chat calls a field, and what it is called here.
_NAMES: Final = (
    ("messages", "input"),
    ("response_format", "text.format"),
    ("reasoning_effort", "reasoning.effort"),
    (".function", ""),
    ("max_tokens", "max_output_tokens"),
)
_OF_MESSAGE: Final = re.compile(r"messages\[(\d+)\](.*)")
_EVERYWHERE: Final = Everywhere("retention is the server's own work")


class ResponseNotFound(NotFound):
    """The project has stored no such response (404)."""

    param = "response_id"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id '{response_id}' not found.")


class PreviousNotFound(InvalidRequest):
    """A response that another shall go on from is not there (400)."""

    code = "previous_response_not_found"
    param = "previous_response_id"


@dataclass(frozen=True, slots=True)
class ResponseRequest:
    """A checked request."""

    #: How to answer; its messages are made of the items here.
    chat: ChatRequest
    #: What is sent, each item with an id.
    input: list[Item]
    instructions: str | None
    previous_id: str | None
    #: Leave out what came first where the context does not hold all of it.
    truncate: bool


@dataclass(frozen=True, slots=True)
class Begun:
    """A response under way."""

    id: str
    answer: Answer
    request: ResponseRequest
    #: The ids of those that it goes on from.
    earlier: tuple[str, ...]


class Responses:
    """The responses of every project."""

    def __init__(self, *, db: Database, chat: Chat, clock: Clock, ids: Ids, settings: Settings) -> None:
        self._db = db
        self._chat = chat
        self._clock = clock
        self._ids = ids
        self._settings = settings

    async def answer(self, scope: Project, request: ResponseRequest) -> Begun:
        """Put the conversation together and return the response, which nobody has started to compute yet.

        Raises:
            PreviousNotFound: what it shall go on from is not there.
            InvalidRequest: the items do not fit together, or as in `Chat.answer`.
            UnknownModel: no such model in this project.
        """
        earlier: list[StoredResponse] = []
        if request.previous_id is not None:
            earlier = await to_thread.run_sync(self._earlier, scope, request.previous_id)
        items = [*(item for response in earlier for item in response.items), *request.input]
        _check_together(items)
        messages, places = messages_of(items)
        try:
            answer = await self._asked(scope, request, messages)
        except (InvalidRequest, NotAvailable) as error:
            n_before = len(items) - len(request.input)
            named = [*([] if request.instructions is None else ["instructions"]), *(_place(at - n_before) for at in places)]
            error.error_param = _renamed(error.error_param, named)
            raise
        return Begun(self._ids.response(), answer, request, tuple(response.id for response in earlier))

    async def count(self, scope: Project, request: ResponseRequest) -> int:
        """Return how many tokens the prompt of a response has; raises as `answer` does.

        Raises:
            NotAvailable: it is a model upstream, whose tokenizer is not here.
        """
        await to_thread.run_sync(self._chat.served, scope, request.chat.model, "a count of tokens")
        return (await self.answer(scope, request)).answer.n_prompt_tokens

    def _earlier(self, scope: Project, response_id: str) -> list[StoredResponse]:
        with self._db.read() as tx:
            found = responses.chain(tx, scope, response_id)
        if not found:
            raise PreviousNotFound(f"Previous response with id '{response_id}' not found.")
        if found[0].previous_id is not None:
            raise PreviousNotFound(
                f"Previous response with id '{found[0].previous_id}' not found: '{response_id}' goes on from it, but it was "
                "deleted or is older than responses are kept. Send the conversation as 'input' instead."
            )
        return found

    async def _asked(self, scope: Project, request: ResponseRequest, messages: list[Message]) -> Answer:
        """Return the answer to the messages; where they are too long and may be cut, to as many of the last as fit."""
        try:
            return await self._ask(scope, request, messages)
        except InvalidRequest as error:
            if error.error_code != TOO_LONG or not request.truncate:
                raise
            too_long = error
        starts = [place for place, message in enumerate(messages) if place and message["role"] not in ("assistant", "tool")]
        fitting: Answer | None = None
        low, high = 0, len(starts)
        while low < high:
            middle = (low + high) // 2
            try:
                fitting, high = await self._ask(scope, request, messages[starts[middle] :]), middle
            except InvalidRequest as error:
                if error.error_code != TOO_LONG:
                    raise
                low = middle + 1
        if fitting is None:
            raise too_long
        return fitting

    async def _ask(self, scope: Project, request: ResponseRequest, messages: list[Message]) -> Answer:
        said = [] if request.instructions is None else [{"role": "system", "content": request.instructions}]
        return await self._chat.answer(scope, replace(request.chat, messages=[*said, *messages]))

    def keep(
        self, scope: Project, begun: Begun, body: dict[str, Any], *, also: Also[StoredResponse] | None = None
    ) -> StoredResponse:
        """Store a response that has come to its end. What `also` writes is in its commit."""
        created_at, days = begun.answer.created_at, self._settings.responses_kept_days
        stored = StoredResponse(
            id=begun.id,
            project_id=scope.project_id,
            created_at=created_at,
            expires_at=None if days is None else created_at + days * DAY_S,
            previous_id=begun.request.previous_id,
            input=begun.request.input,
            body=body,
        )
        with self._db.begin() as tx:
            responses.add(tx, scope, stored)
            if begun.earlier:
                responses.keep_until(tx, scope, begun.earlier, stored.expires_at)
            if also is not None:
                also(tx, stored)
            failpoint("responses.keep")
        return stored

    def get(self, scope: Project, response_id: str) -> StoredResponse:
        """Return a response.

        Raises:
            ResponseNotFound: the project has stored no such one.
        """
        with self._db.read() as tx:
            found = responses.get(tx, scope, response_id)
        if found is None:
            raise ResponseNotFound(response_id)
        return found

    def input_items(
        self, scope: Project, response_id: str, *, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> tuple[list[Item], bool]:
        """Return the items that a response answers, those before its own request too, and whether there are more.

        Raises:
            ResponseNotFound: the project has stored no such response.
            InvalidRequest: `after` names none of them.
        """
        with self._db.read() as tx:
            found = responses.chain(tx, scope, response_id)
        if not found:
            raise ResponseNotFound(response_id)
        items = [*(item for response in found[:-1] for item in response.items), *found[-1].input]
        return part_of(items, after=after, limit=limit, newest_first=order == "desc")

    def cancel(self, scope: Project, response_id: str) -> None:
        """Refuse to cancel a response: none is computed in the background.

        Raises:
            ResponseNotFound: the project has stored no such response.
            StateConflict: it has come to its end.
        """
        status = self.get(scope, response_id).body["status"]
        raise StateConflict(
            f"Cannot cancel a synchronous response: '{response_id}' is {status}. One under way is stopped by closing its "
            "connection.",
            param="response_id",
        )

    def delete(self, scope: Project, response_id: str) -> None:
        """Delete a response.

        Raises:
            ResponseNotFound: the project has stored no such one.
        """
        with self._db.begin() as tx:
            there = responses.delete_one(tx, scope, response_id)
            failpoint("responses.delete")
        if not there:
            raise ResponseNotFound(response_id)

    def sweep(self) -> int:
        """Remove expired responses, every project's; return how many that were."""
        with self._db.begin() as tx:
            swept = responses.sweep(tx, _EVERYWHERE, limit=N_SWEPT)
            failpoint("responses.sweep")
        return len(swept)


def _place(number: int) -> str:
    return "previous_response_id" if number < 0 else f"input[{number}]"


def _renamed(param: str | None, messages: Sequence[str]) -> str | None:
    """Return a field of chat by its name here; `messages` names what each of chat's messages was made of."""
    if param is None:
        return None
    found = _OF_MESSAGE.fullmatch(param)
    if found is not None and int(found[1]) < len(messages):
        return messages[int(found[1])] + found[2].replace(".image_url.url", ".image_url")
    for name, ours in _NAMES:
        param = param.replace(name, ours)
    return param


def _check_together(items: Sequence[Item]) -> None:
    """Refuse items that cannot be one conversation.

    Raises:
        InvalidRequest: two have one id, or a call lacks its output, or an output its call.
    """
    ids: set[str] = set()
    open_calls: dict[str, None] = {}
    for item in items:
        if item["id"] in ids:
            raise InvalidRequest(
                f"Duplicate item found with id {item['id']}. Remove duplicate items from your input and try again.",
                param="input",
            )
        ids.add(item["id"])
        call_id = item.get("call_id")
        if item["type"] == "function_call":
            open_calls[item["call_id"]] = None
        elif item["type"] == "function_call_output" and call_id not in open_calls:
            raise InvalidRequest(f"No tool call found for function call output with call_id {call_id}.", param="input")
        elif item["type"] == "function_call_output":
            del open_calls[item["call_id"]]
    if open_calls:
        raise InvalidRequest(f"No tool output found for function call {next(iter(open_calls))}.", param="input")

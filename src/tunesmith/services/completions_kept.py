"""Stored chat completions: kept once they are whole, listed, described anew, deleted."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunesmith.core.errors import InvalidRequest, NotFound
from tunesmith.core.failpoint import failpoint
from tunesmith.domain.completion import Completion
from tunesmith.domain.scope import Project
from tunesmith.services.idempotency import Also
from tunesmith.store import completions
from tunesmith.store.session import Database


class CompletionNotFound(NotFound):
    """The project has stored no such chat completion (404)."""

    param = "completion_id"

    def __init__(self, completion_id: str) -> None:
        super().__init__(
            f"No chat completion is stored under the id '{completion_id}': only those that were created with 'store' true, "
            "came to their end and were not deleted are."
        )


class KeptCompletions:
    """The stored chat completions of every project."""

    def __init__(self, *, db: Database) -> None:
        self._db = db

    def keep(self, scope: Project, completion: Completion, *, also: Also[Completion] | None = None) -> None:
        """Store a completion that has come to its end. What `also` writes is in its commit."""
        with self._db.begin() as tx:
            completions.add(tx, scope, completion)
            if also is not None:
                also(tx, completion)
            failpoint("completions.keep")

    def get(self, scope: Project, completion_id: str) -> Completion:
        """Return a completion.

        Raises:
            CompletionNotFound: the project has stored no such one.
        """
        with self._db.read() as tx:
            found = completions.get(tx, scope, completion_id)
        if found is None:
            raise CompletionNotFound(completion_id)
        return found

    def page(
        self,
        scope: Project,
        *,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
        model: str | None,
        metadata: Mapping[str, str] | None,
    ) -> tuple[list[Completion], bool]:
        """Return completions by time of creation, and whether there are more.

        Raises:
            InvalidRequest: `after` names no completion.
        """
        with self._db.read() as tx:
            return completions.page(tx, scope, after=after, limit=limit, order=order, model=model, metadata=metadata)

    def messages(
        self, scope: Project, completion_id: str, *, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Return the messages that a completion answers, each with its id, and whether there are more.

        Raises:
            CompletionNotFound: the project has stored no such completion.
            InvalidRequest: `after` names no message of it.
        """
        sent = self.get(scope, completion_id).messages
        named = [{"id": f"{completion_id}-{place}", **message} for place, message in enumerate(sent)]
        return part_of(named, after=after, limit=limit, newest_first=order == "desc")

    def describe(self, scope: Project, completion_id: str, metadata: Mapping[str, str]) -> Completion:
        """Put other metadata in place of a completion's.

        Raises:
            CompletionNotFound: the project has stored no such completion.
        """
        with self._db.begin() as tx:
            described = completions.describe(tx, scope, completion_id, metadata)
            failpoint("completions.describe")
        if described is None:
            raise CompletionNotFound(completion_id)
        return described

    def delete(self, scope: Project, completion_id: str) -> None:
        """Delete a completion.

        Raises:
            CompletionNotFound: the project has stored no such one.
        """
        with self._db.begin() as tx:
            there = completions.delete_one(tx, scope, completion_id)
            failpoint("completions.delete")
        if not there:
            raise CompletionNotFound(completion_id)


def part_of(
    items: Sequence[dict[str, Any]], *, after: str | None, limit: int, newest_first: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Return the part of a list of objects with ids that a query asks for, and whether there is more.

    Raises:
        InvalidRequest: `after` names none of them.
    """
    ordered = list(reversed(items)) if newest_first else list(items)
    ids = [item["id"] for item in ordered]
    if after is not None and after not in ids:
        raise InvalidRequest(f"There is no object with id '{after}' to list after.", param="after")
    first = 0 if after is None else ids.index(after) + 1
    return ordered[first : first + limit], len(ordered) > first + limit

"""Queries on stored chat completions; their metadata lies in rows of its own too, so that lists find it by an index."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final, Literal

from sqlalchemy import delete, insert, select, update

from tunesmith.domain.completion import Completion
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned, past
from tunesmith.store.session import Transaction
from tunesmith.store.tables import completion_metadata, completions

_COLUMNS: Final = [completions.c[field.name] for field in fields(Completion)]


def _completion(row: dict[str, Any]) -> Completion:
    return Completion(**row)


def add(tx: Transaction, scope: Scope, completion: Completion) -> None:
    """Insert a completion.

    Raises:
        ValueError: the completion is not of the scope.
    """
    project_id = getattr(scope, "project_id", completion.project_id)
    if project_id != completion.project_id:
        raise ValueError(f"completion {completion.id} is of {completion.project_id}, not of {project_id}")
    tx.execute(insert(completions).values(**asdict(completion)))
    _add_pairs(tx, completion)


def _add_pairs(tx: Transaction, completion: Completion) -> None:
    pairs = [
        {"completion_id": completion.id, "key": key, "project_id": completion.project_id, "value": value}
        for key, value in completion.metadata.items()
    ]
    if pairs:
        tx.execute(insert(completion_metadata), pairs)


def get(tx: Transaction, scope: Scope, completion_id: str) -> Completion | None:
    """Return a completion, or None."""
    row = tx.one(select(*_COLUMNS).where(owned(completions, scope), completions.c.id == completion_id))
    return None if row is None else _completion(row)


def page(
    tx: Transaction,
    scope: Scope,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "asc",
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> tuple[list[Completion], bool]:
    """Return completions by time of creation and whether there are more; `metadata` keeps those that have all its pairs.

    Raises:
        InvalidRequest: `after` names no completion of the scope.
    """
    query = select(*_COLUMNS).where(owned(completions, scope))
    if model is not None:
        query = query.where(completions.c.model == model)
    for key, value in (metadata or {}).items():
        pair = select(completion_metadata.c.completion_id).where(
            owned(completion_metadata, scope), completion_metadata.c.key == key, completion_metadata.c.value == value
        )
        query = query.where(completions.c.id.in_(pair))
    newest_first = order == "desc"
    if after is not None:
        query = query.where(past(tx, scope, completions, after, newest_first=newest_first))
    ordering = (completions.c.created_at, completions.c.id)
    query = query.order_by(*(column.desc() if newest_first else column for column in ordering))
    rows = tx.every(query.limit(limit + 1))
    return [_completion(row) for row in rows[:limit]], len(rows) > limit


def describe(tx: Transaction, scope: Scope, completion_id: str, metadata: Mapping[str, str]) -> Completion | None:
    """Put other metadata in place of a completion's and return it; None when there is none."""
    mine = (owned(completions, scope), completions.c.id == completion_id)
    row = tx.one(update(completions).where(*mine).values(metadata=dict(metadata)).returning(*_COLUMNS))
    if row is None:
        return None
    described = _completion(row)
    pairs = delete(completion_metadata).where(
        owned(completion_metadata, scope), completion_metadata.c.completion_id == completion_id
    )
    tx.execute(pairs)
    _add_pairs(tx, described)
    return described


def delete_one(tx: Transaction, scope: Scope, completion_id: str) -> bool:
    """Delete a completion with its metadata; False when there was none."""
    statement = delete(completions).where(owned(completions, scope), completions.c.id == completion_id)
    return tx.execute(statement).rowcount > 0

"""Queries on base models, which belong to the server, and on tuned models and their aliases, which belong to a project."""

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import ColumnElement, insert, or_, select, update
from sqlalchemy import delete as delete_rows

from tunesmith.domain.model import Alias, Base, TunedModel, Upstream
from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import aliases as alias_rows
from tunesmith.store.tables import bases as base_rows
from tunesmith.store.tables import tuned_models
from tunesmith.store.tables_sharing import checkpoint_permissions as permissions

_BASE_COLUMNS: Final = [base_rows.c[field.name] for field in fields(Base)]
_TUNED_COLUMNS: Final = [tuned_models.c[field.name] for field in fields(TunedModel)]
_ALIAS_COLUMNS: Final = [alias_rows.c[field.name] for field in fields(Alias)]


def _base(row: dict[str, Any]) -> Base:
    columns: dict[str, Any] = dict(row)
    if columns["upstream"] is not None:
        columns["upstream"] = Upstream(**columns["upstream"])
    return Base(**columns)


def _tuned(row: dict[str, Any]) -> TunedModel:
    return TunedModel(**row)


def add_base(tx: Transaction, scope: Scope, base: Base) -> None:  # noqa: ARG001 - bases are seen from every scope
    """Register a base model."""
    tx.execute(insert(base_rows).values(**asdict(base)))


def bases(tx: Transaction, scope: Scope) -> list[Base]:  # noqa: ARG001 - bases are seen from every scope
    """Return every base model, oldest first."""
    query = select(*_BASE_COLUMNS).order_by(base_rows.c.created_at, base_rows.c.name)
    return [_base(row) for row in tx.every(query)]


def get_base(tx: Transaction, scope: Scope, name: str) -> Base | None:
    """Return a base model by its name, or by one of its aliases."""
    row = tx.one(select(*_BASE_COLUMNS).where(base_rows.c.name == name))
    if row is not None:
        return _base(row)
    return next((base for base in bases(tx, scope) if name in base.aliases), None)


def swap_base(
    tx: Transaction,
    scope: Scope,  # noqa: ARG001 - bases are seen from every scope
    name: str,
    *,
    expect_status: Collection[str] | None = None,
    **changes: Any,
) -> Base | None:
    """Change a base model if it is still in an expected status; None means that it is not, or is gone."""
    statement = update(base_rows).where(base_rows.c.name == name)
    if expect_status is not None:
        statement = statement.where(base_rows.c.status.in_(list(expect_status)))
    row = tx.one(statement.values(**changes).returning(*_BASE_COLUMNS))
    return None if row is None else _base(row)


def delete_base(tx: Transaction, scope: Scope, name: str) -> bool:  # noqa: ARG001 - bases are seen from every scope
    """Forget a base model; return whether there was one."""
    return tx.execute(delete_rows(base_rows).where(base_rows.c.name == name)).rowcount > 0


def add(tx: Transaction, scope: Scope, model: TunedModel) -> None:
    """Insert a tuned model.

    Raises:
        ValueError: the model is not of the scope.
    """
    project_id = getattr(scope, "project_id", model.project_id)
    if project_id != model.project_id:
        raise ValueError(f"model {model.name} is of {model.project_id}, not of {project_id}")
    tx.execute(insert(tuned_models).values(**asdict(model)))


def get(tx: Transaction, scope: Scope, name: str, *, lock: bool = False) -> TunedModel | None:
    """Return a tuned model or checkpoint by its name, or None; with `lock` it stays until the transaction ends."""
    query = select(*_TUNED_COLUMNS).where(owned(tuned_models, scope), tuned_models.c.name == name)
    row = tx.one(query.with_for_update() if lock else query)
    return None if row is None else _tuned(row)


def _there(scope: Scope) -> ColumnElement[bool]:
    """Return the condition that a scope may use a model: it is its own, or it has the permission."""
    permitted = select(permissions.c.model).where(owned(permissions, scope))
    return or_(owned(tuned_models, scope), tuned_models.c.name.in_(permitted))


def usable(tx: Transaction, scope: Scope, name: str, *, lock: bool = False) -> TunedModel | None:
    """Return a tuned model or checkpoint that a scope may use, its own or a permitted one; `lock` as in `get`."""
    query = select(*_TUNED_COLUMNS).where(_there(scope), tuned_models.c.name == name)
    row = tx.one(query.with_for_update() if lock else query)
    return None if row is None else _tuned(row)


def find(tx: Transaction, scope: Scope, name: str) -> TunedModel | None:
    """Return the usable tuned model or checkpoint that a name stands for: its own, or one of the scope's aliases."""
    model = usable(tx, scope, name)
    if model is not None:
        return model
    query = select(*_TUNED_COLUMNS).join(alias_rows, alias_rows.c.model == tuned_models.c.name)
    row = tx.one(query.where(owned(tuned_models, scope), owned(alias_rows, scope), alias_rows.c.name == name))
    return None if row is None else _tuned(row)


def tuned(tx: Transaction, scope: Scope) -> list[TunedModel]:
    """Return the tuned models and checkpoints that a scope may use, newest first."""
    query = select(*_TUNED_COLUMNS).where(_there(scope))
    query = query.order_by(tuned_models.c.created_at.desc(), tuned_models.c.name.desc())
    return [_tuned(row) for row in tx.every(query)]


def delete(tx: Transaction, scope: Scope, name: str) -> TunedModel | None:
    """Delete a tuned model's row and return it; None when there was none."""
    statement = delete_rows(tuned_models).where(owned(tuned_models, scope), tuned_models.c.name == name)
    row = tx.one(statement.returning(*_TUNED_COLUMNS))
    return None if row is None else _tuned(row)


def add_alias(tx: Transaction, scope: Scope, alias: Alias) -> None:
    """Let a name stand for a tuned model, and no longer for another one.

    Raises:
        ValueError: the alias is not of the scope.
    """
    project_id = getattr(scope, "project_id", alias.project_id)
    if project_id != alias.project_id:
        raise ValueError(f"alias {alias.name} is of {alias.project_id}, not of {project_id}")
    delete_alias(tx, scope, alias.name)
    tx.execute(insert(alias_rows).values(**asdict(alias)))


def aliases(tx: Transaction, scope: Scope, name: str | None = None) -> list[Alias]:
    """Return the aliases of tuned models, oldest first; with `name` those of this name."""
    query = select(*_ALIAS_COLUMNS).where(owned(alias_rows, scope))
    if name is not None:
        query = query.where(alias_rows.c.name == name)
    return [Alias(**row) for row in tx.every(query.order_by(alias_rows.c.created_at, alias_rows.c.name))]


def delete_alias(tx: Transaction, scope: Scope, name: str) -> Alias | None:
    """Free an alias and return it; None when there was none."""
    statement = delete_rows(alias_rows).where(owned(alias_rows, scope), alias_rows.c.name == name)
    row = tx.one(statement.returning(*_ALIAS_COLUMNS))
    return None if row is None else Alias(**row)

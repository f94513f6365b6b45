"""Queries on what a backup is made of: the keys that rows name in the blob store."""

from sqlalchemy import and_, or_, select

from tunesmith.domain.scope import Scope
from tunesmith.store.scoping import owned
from tunesmith.store.session import Transaction
from tunesmith.store.tables import checkpoints, files, tuned_models, upload_parts


def needed(tx: Transaction, scope: Scope) -> list[str]:
    """Return the keys, objects' and prefixes', that rows promise: their bytes go only after those rows have changed."""
    unexpired = or_(files.c.expires_at.is_(None), files.c.expires_at > tx.clock.now())
    there = and_(owned(files, scope), files.c.deleted_at.is_(None), unexpired)
    found = set(tx.execute(select(files.c.key).where(there)).scalars())
    found |= set(tx.execute(select(checkpoints.c.key).where(owned(checkpoints, scope), checkpoints.c.kept)).scalars())
    found |= set(tx.execute(select(tuned_models.c.adapter_key).where(owned(tuned_models, scope))).scalars())
    return sorted(found)


def useful(tx: Transaction, scope: Scope) -> list[str]:
    """Return the keys whose bytes may be there: of deleted files that jobs still use, of uploads that are not complete."""
    found = set(tx.execute(select(files.c.key).where(owned(files, scope))).scalars())
    parts = select(upload_parts.c.upload_id, upload_parts.c.id).where(owned(upload_parts, scope))
    return sorted(found | {f"uploads/{part['upload_id']}/{part['id']}" for part in tx.every(parts)})

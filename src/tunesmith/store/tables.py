"""The tables, as SQLAlchemy Core has them; the migrations beside this file build the same ones."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.types import TypeEngine

from tunesmith.domain.states import Status

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _json() -> TypeEngine[object]:
    """Return a JSON column type that keeps None as SQL's NULL."""
    return JSON(none_as_null=True)


_STATUSES = ", ".join(f"'{status}'" for status in Status)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("start_adapter", Text),
    Column("training_file", String(64), nullable=False),
    Column("validation_file", String(64)),
    Column("suffix", Text),
    Column("seed", BigInteger, nullable=False),
    Column("method", String(32), nullable=False),
    Column("method_config", _json(), nullable=False),
    Column("resolved", _json()),
    Column("integrations", _json(), nullable=False),
    Column("metadata", _json()),
    Column("created_at", Double, nullable=False),
    Column("status", String(32), nullable=False),
    Column("desired", String(16), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("lost_attempts", Integer, nullable=False),
    Column("handle", _json()),
    Column("token_sha256", String(64)),
    Column("not_before", Double, nullable=False),
    Column("queued_at", Double),
    Column("drained", Boolean, nullable=False, server_default=false()),
    Column("waiting_for", String(32)),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("estimated_finish", Double),
    Column("fine_tuned_model", Text),
    Column("result_files", _json(), nullable=False),
    Column("trained_tokens", BigInteger),
    Column("error", _json()),
    Column("counts", _json()),
    Column("pins", _json(), nullable=False),
    Column("released_at", Double),
    Column("next_seq", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    CheckConstraint(f"status IN ({_STATUSES})", name="status"),
    CheckConstraint("desired IN ('run', 'pause', 'cancel')", name="desired"),
    Index(None, "project_id", "created_at", "id"),
    Index(None, "status", "created_at"),
    Index(None, "status", "queued_at", "created_at", "id", "project_id"),
    Index(None, "status", "waiting_for", "queued_at"),
    Index(None, "released_at", "attempt"),
    Index(None, "start_adapter"),
    Index(
        "ix_jobs_without_metadata",
        "project_id",
        "created_at",
        "id",
        sqlite_where=text("metadata IS NULL"),
        postgresql_where=text("metadata IS NULL"),
    ),
    Index(None, "status", "project_id", "trained_tokens"),
)

job_metadata = Table(
    "job_metadata",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("value", Text, nullable=False),
    #: The job's own, so that a list by metadata is a walk along the index.
    Column("created_at", Double, nullable=False),
    Index(None, "project_id", "key", "value", "created_at", "job_id"),
)

events = Table(
    "events",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("idempotency_key", String(128), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("level", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("type", String(32), nullable=False),
    Column("data", _json()),
    UniqueConstraint("job_id", "idempotency_key"),
    UniqueConstraint("id"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("step", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("metrics", _json(), nullable=False),
    Column("by_pause", Boolean, nullable=False, server_default=false()),
    Column("kept", Boolean, nullable=False),
    Index(None, "job_id", "step"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("data", _json(), nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("delivered_at", Double),
    Column("n_tries", Integer, nullable=False),
    Column("next_try_at", Double, nullable=False),
    UniqueConstraint("job_id", "type"),
    Index(None, "delivered_at"),
)

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("expires_at", Double),
    #: Set when its owner deleted it; the row and the bytes go once no job needs them.
    Column("deleted_at", Double),
    Index(None, "project_id", "created_at", "id"),
    Index(None, "expires_at"),
    Index(None, "deleted_at"),
)

#: Base models belong to the server: every project sees them, so they carry no project.
bases = Table(
    "bases",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("source", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("context_length", Integer, nullable=False),
    Column("n_parameters", BigInteger, nullable=False),
    Column("weights_bytes", BigInteger, nullable=False),
    Column("pins", _json(), nullable=False),
    Column("aliases", _json(), nullable=False),
    Column("status", String(16), nullable=False),
    Column("detail", Text),
    Column("fingerprint", Text, nullable=False),
    Column("downloaded_bytes", BigInteger),
    Column("total_bytes", BigInteger),
    Column("upstream", _json()),
)

tuned_models = Table(
    "tuned_models",
    metadata,
    Column("name", Text, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("base", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("adapter_key", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("pins", _json(), nullable=False),
    Column("step", Integer),
    Index(None, "project_id", "created_at", "name"),
)

#: Further names of tuned models; a model's go with it.
aliases = Table(
    "aliases",
    metadata,
    Column("project_id", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("model", Text, ForeignKey("tuned_models.name", ondelete="CASCADE"), nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "model"),
)

#: Answers that are kept for requests that may be sent again: by their key, or by what they say where they have none.
idempotency = Table(
    "idempotency",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("key", String(255)),
    Column("fingerprint", String(64), nullable=False),
    Column("n_retries", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("headers", _json(), nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("project_id", "key"),
    Index(None, "project_id", "fingerprint"),
    Index(None, "expires_at"),
)

#: Chat completions that were asked to be stored.
completions = Table(
    "completions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("model", Text, nullable=False),
    Column("metadata", _json(), nullable=False),
    Column("body", _json(), nullable=False),
    Column("messages", _json(), nullable=False),
    Index(None, "project_id", "created_at", "id"),
)

completion_metadata = Table(
    "completion_metadata",
    metadata,
    Column("completion_id", String(64), ForeignKey("completions.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("value", Text, nullable=False),
    Index(None, "project_id", "key", "value"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("organization_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("expires_after_s", Integer),
    Column("status", String(16), nullable=False),
    Column("file_id", String(64)),
    Column("part_ids", _json()),
    Column("received_bytes", BigInteger, nullable=False),
    Column("has_parts", Boolean, nullable=False),
    Index(None, "has_parts", "expires_at"),
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("upload_id", String(64), ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index(None, "upload_id"),
)

#: Responses, each with what its own request sent; what came before it is in those that it goes on from.
responses = Table(
    "responses",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    #: No foreign key: one that was deleted leaves those after it.
    Column("previous_id", String(64)),
    Column("input", _json(), nullable=False),
    Column("body", _json(), nullable=False),
    Index(None, "expires_at"),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", _json(), nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", Double),
    Column("disabled_reason", Text),
    Index(None, "project_id", "created_at", "id"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(64), nullable=False),
    Column("endpoint_id", String(64), ForeignKey("webhook_endpoints.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("data", _json(), nullable=False),
    Column("event_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("next_try_at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("n_tries", Integer, nullable=False),
    Column("tried_at", Double),
    Column("status_code", Integer),
    Column("reason", Text),
    UniqueConstraint("endpoint_id", "event_id"),
    Index(None, "status", "next_try_at"),
    Index(None, "endpoint_id", "event_at", "id"),
)

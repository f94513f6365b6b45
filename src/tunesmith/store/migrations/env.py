"""How Alembic reaches the database: through the engine that `store/migrate.py` hands it."""

from alembic import context
from sqlalchemy import Engine

from tunesmith.store.tables import metadata


def run() -> None:
    """Run the asked migrations in one transaction."""
    engine: Engine = context.config.attributes["engine"]
    with engine.begin() as connection:
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
        context.run_migrations()


run()

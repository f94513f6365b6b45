"""Bringing a database's tables to this release's form, by the migrations in this package."""

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine


class NewerDatabase(Exception):
    """A newer release wrote the database; this one cannot read it."""


def configuration(engine: Engine) -> Config:
    """Return Alembic's configuration for the package's own migrations on an engine."""
    config = Config()
    config.set_main_option("script_location", str(files("tunesmith.store") / "migrations"))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision.

    Raises:
        NewerDatabase: the database's revision is not known to this release.
    """
    config = configuration(engine)
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in scripts.walk_revisions()}
    if present is not None and present not in known:
        raise NewerDatabase(
            f"The database was written by a newer release of Tunesmith: it is at revision {present}, and this release knows "
            f"{scripts.get_current_head()}. Run that release, or restore a backup made by this one."
        )
    command.upgrade(config, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Take the tables back to a revision; `base` drops them all."""
    command.downgrade(configuration(engine), revision)

"""Bringing a database's tables to this release's form, by the migrations in this package.

Alembic is imported when there is something to bring: that takes longer than everything else here.
"""

from importlib.resources import files
from typing import TYPE_CHECKING, Final

from sqlalchemy import Engine, inspect, text

from tunesmith.core.failpoint import failpoint

if TYPE_CHECKING:
    from alembic.config import Config

#: The newest migration.
HEAD: Final = "0019"


class NewerDatabase(Exception):
    """A newer release wrote the database; this one cannot read it."""


def configuration(engine: Engine) -> "Config":
    """Return Alembic's configuration for the package's own migrations on an engine."""
    from alembic.config import Config  # noqa: PLC0415 - above

    config = Config()
    config.set_main_option("script_location", str(files("tunesmith.store") / "migrations"))
    config.attributes["engine"] = engine
    return config


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision.

    Raises:
        NewerDatabase: the database's revision is not known to this release.
    """
    present = _present(engine)
    if present == HEAD and revision == "head":
        return
    from alembic import command  # noqa: PLC0415 - above
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - above

    config = configuration(engine)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if present is not None and present not in known:
        raise NewerDatabase(
            f"The database was written by a newer release of Tunesmith: it is at revision {present}, and this release knows "
            f"{HEAD}. Run that release, or restore a backup made by this one."
        )
    failpoint("migrate.upgrade")
    command.upgrade(config, revision)
    failpoint("migrate.upgraded")


def _present(engine: Engine) -> str | None:
    """Return the database's revision; None when no migration has been made in it."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def downgrade(engine: Engine, revision: str) -> None:
    """Take the tables back to a revision; `base` drops them all."""
    from alembic import command  # noqa: PLC0415 - above

    command.downgrade(configuration(engine), revision)

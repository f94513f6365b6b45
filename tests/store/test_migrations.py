"""The migrations and the tables agree; they go up, down and up; a newer database is refused."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, make_url, text

from tunesmith.core.ids import Ids
from tunesmith.domain.scope import Project
from tunesmith.store import jobs, migrate
from tunesmith.store.session import Database
from tunesmith.store.tables import metadata

PROJECT = Project("proj_a", "org-a")


def _engine(url: str):
    parsed = make_url(url)
    return create_engine(parsed if parsed.drivername == "sqlite" else parsed.set(drivername="postgresql+psycopg"))


def test_the_migrations_build_the_tables(empty_url: str) -> None:
    engine = _engine(empty_url)
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        checks = {check["name"] for check in inspect(connection).get_check_constraints("jobs")}
    engine.dispose()
    assert checks == {"ck_jobs_status", "ck_jobs_desired"}


def test_the_migrations_build_the_same_indexes_and_keys(empty_url: str) -> None:
    engine = _engine(empty_url)
    migrate.upgrade(engine)
    with engine.connect() as connection:
        looked = inspect(connection)
        for table in metadata.sorted_tables:
            primary = looked.get_pk_constraint(table.name)["constrained_columns"]
            assert primary == [column.name for column in table.primary_key.columns]
            foreign = {key["constrained_columns"][0] for key in looked.get_foreign_keys(table.name)}
            assert foreign == {key.parent.name for key in table.foreign_keys}
            indexes = {index["name"] for index in looked.get_indexes(table.name) if not index.get("duplicates_constraint")}
            assert indexes == {index.name for index in table.indexes}
    engine.dispose()


def test_the_newest_migration_is_the_one_that_the_release_names(empty_url: str) -> None:
    engine = _engine(empty_url)
    assert ScriptDirectory.from_config(migrate.configuration(engine)).get_current_head() == migrate.HEAD
    engine.dispose()


def test_up_down_up(empty_url: str) -> None:
    engine = _engine(empty_url)
    migrate.upgrade(engine)
    migrate.downgrade(engine, "base")
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    migrate.upgrade(engine)
    migrate.upgrade(engine)
    assert set(inspect(engine).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


def test_jobs_of_an_older_release_have_a_place_in_the_queue(empty_url: str, watch, new_job) -> None:
    database = Database(empty_url, clock=watch, ids=Ids())
    database.migrate()
    job = new_job(created_at=5.0)
    with database.begin() as tx:
        jobs.add(tx, PROJECT, job)
    engine = _engine(empty_url)
    migrate.downgrade(engine, "0003")
    migrate.upgrade(engine)
    engine.dispose()
    with database.read() as tx:
        found = jobs.get(tx, PROJECT, job.id)
    database.close()
    assert found is not None
    assert (found.queued_at, found.waiting_for) == (5.0, None)


def test_jobs_of_an_older_release_are_found_by_their_metadata(empty_url: str, watch, new_job) -> None:
    database = Database(empty_url, clock=watch, ids=Ids())
    database.migrate()
    made = [new_job(created_at=float(number), metadata={"team": "a"}) for number in range(3)]
    with database.begin() as tx:
        for job in made:
            jobs.add(tx, PROJECT, job)
    engine = _engine(empty_url)
    migrate.downgrade(engine, "0012")
    migrate.upgrade(engine)
    engine.dispose()
    with database.read() as tx:
        found, _ = jobs.page(tx, PROJECT, metadata={"team": "a"})
    database.close()
    assert [job.id for job in found] == [job.id for job in reversed(made)]


def test_a_database_of_a_newer_release_is_refused(empty_url: str, watch) -> None:
    database = Database(empty_url, clock=watch, ids=Ids())
    database.migrate()
    with database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    told = rf"it is at revision 9999, and this release knows {migrate.HEAD}.*Run that release"
    with pytest.raises(migrate.NewerDatabase, match=told):
        database.migrate()
    database.close()

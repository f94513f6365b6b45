"""Every store test runs twice: on SQLite, and on a private PostgreSQL started from the system's binaries."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.ids import Ids
from tunesmith.domain.job import Job
from tunesmith.domain.scope import Project
from tunesmith.store.session import Database
from tunesmith.store.tables import metadata

BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.pg)]
PROJECT = Project("proj_a", "org-a")
OTHER = Project("proj_b", "org-b")


class Watch:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture(scope="session")
def migrated_cluster(cluster: Any) -> Any:
    """Return the PostgreSQL server with a database of every table."""
    cluster.execute("CREATE DATABASE tunesmith")
    _migrated(cluster.url("tunesmith"))
    return cluster


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def empty_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster = request.getfixturevalue("cluster")
    name = f"empty_{random.randrange(10**12)}"
    cluster.execute(f"CREATE DATABASE {name}")
    yield cluster.url(name)
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database file with every table, to be copied."""
    path = tmp_path_factory.mktemp("template") / "tunesmith.db"
    _migrated(f"sqlite:///{path}")
    return path


def _migrated(url: str) -> None:
    database = Database(url, clock=Watch(), ids=Ids())
    database.migrate()
    database.close()


@pytest.fixture
def url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a database with every table and no rows."""
    if backend == "sqlite":
        path = tmp_path / "tunesmith.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    cluster = request.getfixturevalue("migrated_cluster")
    cluster.execute(f"TRUNCATE {', '.join(metadata.tables)} CASCADE", "tunesmith")
    return cluster.url("tunesmith")


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def db(url: str, watch: Watch) -> Iterator[Database]:
    """Return a database with every table and no rows."""
    made = Database(url, clock=watch, ids=Ids(random.Random(0)))
    yield made
    made.close()


@pytest.fixture
def new_job(watch: Watch) -> Callable[..., Job]:
    """Return a maker of jobs of one project; keywords replace fields."""
    ids = Ids(random.Random(7))

    def make(scope: Project = PROJECT, **fields: Any) -> Job:
        return make_job(ids, scope, **{"created_at": watch.now(), **fields})

    return make


def make_job(ids: Ids, scope: Project, **fields: Any) -> Job:
    known: dict[str, Any] = {
        "id": ids.job(),
        "project_id": scope.project_id,
        "organization_id": scope.organization_id,
        "model": "tunesmith-nano",
        "base": "tunesmith-nano",
        "start_adapter": None,
        "training_file": "file-train",
        "validation_file": None,
        "suffix": None,
        "seed": 7,
        "method": "supervised",
        "method_config": {"hyperparameters": {"n_epochs": "auto"}},
        "resolved": None,
        "integrations": [],
        "metadata": None,
        "pins": {"weights": "w", "tokenizer": "t", "template": "c"},
    }
    return Job(**{**known, **fields})

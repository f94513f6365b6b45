"""Every store test runs twice: on SQLite, and on a private PostgreSQL started from the system's binaries."""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

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


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server on a Unix socket in a temporary folder."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database).replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()


def _binaries() -> Path | None:
    """Return the folder that holds `initdb` and `postgres`, None where PostgreSQL's server is not installed."""
    places = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        binary = place / "initdb"
        if binary.exists():
            real = binary.resolve().parent
            if (real / "pg_ctl").exists():
                return real
    return None


def _as_postgres(command: list[str]) -> list[str]:
    """Return the command as it runs as the user `postgres` when we are root: the server refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command] if os.geteuid() == 0 else command


def _run(command: list[str]) -> None:
    done = subprocess.run(
        _as_postgres(command),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )
    if done.returncode != 0:
        pytest.fail(f"{command[0]} failed: {done.stdout}{done.stderr}")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start one server for the session."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server binaries (initdb, pg_ctl) are neither in PATH nor in /usr/lib/postgresql/*/bin")
    # The socket's path may have about 100 bytes, which pytest's own folders exceed.
    folder = Path(tempfile.mkdtemp(prefix="tspg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    pg_ctl = str(binaries / "pg_ctl")
    try:
        _run([str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=120"
        _run([pg_ctl, "-D", str(data), "-w", "-t", "120", "-l", str(folder / "log"), "-o", options, "start"])
        made = Cluster(folder)
        made.execute("CREATE DATABASE tunesmith")
        _migrated(made.url("tunesmith"))
        yield made
        _run([pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def empty_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the URL of a database without tables."""
    if backend == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    cluster: Cluster = request.getfixturevalue("cluster")
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
    cluster: Cluster = request.getfixturevalue("cluster")
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

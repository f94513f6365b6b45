"""What every test stands on: one hypothesis profile, no network, few threads, a PostgreSQL where the machine has one."""

import contextlib
import gc
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import create_engine, text

# What is imported stays: looking through it for garbage again and again takes more time than most tests.
gc.disable()

# Whoever starts the tests in the background may have interrupts ignored; commands under test inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile(
    "tunesmith", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
#: The long version, by `make soak`: at random, and a failure prints what plays it again.
settings.register_profile(
    "soak", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile(os.environ.get("TUNESMITH_TEST_PROFILE", "tunesmith"))


def pytest_collection_finish() -> None:
    """Keep what was imported and collected out of every later look for garbage."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _no_settings_of_the_person_who_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop `TUNESMITH_*` settings from the environment, so that a test sees the defaults."""
    for name in list(os.environ):
        if name.startswith("TUNESMITH_") and not name.startswith(("TUNESMITH_TEST_", "TUNESMITH_SDK_")):
            monkeypatch.delenv(name)


@pytest.fixture
def anyio_backend() -> str:
    """Run `@pytest.mark.anyio` tests on asyncio, the product's only event loop."""
    return "asyncio"


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server on a Unix socket in a temporary folder."""

    folder: Path
    binaries: Path

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        engine = create_engine(self.url(database).replace("postgresql://", "postgresql+psycopg://"))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()

    def control(self, *command: str) -> None:
        self.run([str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *command])

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=120"
        self.control("-t", "120", "-l", str(self.folder / "log"), "-o", options, "start")

    def initialise(self) -> None:
        # it refuses to run as root, and may not look into what is root's
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres", "postgres")
        command = [str(self.binaries / "initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-A", "trust"]
        self.run([*command, "-E", "UTF8", "--no-sync"])

    def signal(self, number: int) -> list[int]:
        """Send a signal to the server and everything that it started; return to whom."""
        root = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
        everybody = [root, *map(int, children)]
        for pid in everybody:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return everybody

    def run(self, command: list[str]) -> None:
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        done = subprocess.run(
            [*as_user, *command],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        if done.returncode != 0:
            pytest.fail(f"{command[0]} failed: {done.stdout}{done.stderr}")


def _binaries() -> Path | None:
    """Return the folder that holds `initdb` and `pg_ctl`, None where PostgreSQL's server is not installed."""
    places = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        binary = place / "initdb"
        if binary.exists():
            real = binary.resolve().parent
            if (real / "pg_ctl").exists():
                return real
    return None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Start one PostgreSQL server for the session."""
    yield from _cluster()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL server for one test, which may treat it as it likes."""
    yield from _cluster()


def _cluster() -> Iterator[Cluster]:
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server binaries (initdb, pg_ctl) are neither in PATH nor in /usr/lib/postgresql/*/bin")
    # The socket's path may have about 100 bytes, which pytest's own folders exceed.
    made = Cluster(Path(tempfile.mkdtemp(prefix="tspg-")), binaries)
    try:
        made.initialise()
        made.start()
        yield made
        made.control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(made.folder, ignore_errors=True)

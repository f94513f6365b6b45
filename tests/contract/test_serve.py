"""`tunesmith serve` as a process: what it prints, what prevents its start, and how it ends."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.cli.serve import listen
from tunesmith.cli.serve import start as begin
from tunesmith.core.data_folder import VERSION
from tunesmith.core.settings import Settings

READY = "Tunesmith is ready at "
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a server; none outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*flags: str, data: str = "data", log: Any = subprocess.PIPE) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "serve", "--data-dir", str(tmp_path / data), *flags],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"TUNESMITH_SAMPLER_WARM": "0", "TUNESMITH_WARM_SPARES": "0"},
        )
        started.append(server)
        return server

    yield run
    for server in started:
        if server.poll() is None:
            server.kill()
        server.communicate()


def base_url(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith(READY), server.communicate()[1]
    return line.removeprefix(READY).strip()


def test_it_serves_on_a_free_port_small_and_ends_cleanly(start: Start) -> None:
    with tempfile.TemporaryDirectory(prefix="tunesmith-test-") as data:
        serves_small_and_ends_cleanly(start, Path(data))


def serves_small_and_ends_cleanly(start: Start, data: Path) -> None:
    began = time.monotonic()
    server = start("--port", "0", data=str(data))
    url = base_url(server)
    assert time.monotonic() - began < 30
    assert url.startswith("http://127.0.0.1:")
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["tunesmith-nano"]
    status = Path(f"/proc/{server.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 200 * 1024
    channel = data / "run" / "channel.sock"
    assert channel.stat().st_mode & 0o777 == 0o600
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].removesuffix("/v1")))):
        server.terminate()  # an open connection does not hold the end up
        out, err = server.communicate(timeout=30)
    assert (server.returncode, out) == (0, "")
    assert "server.stopped" in err
    assert "Traceback" not in err
    assert not channel.exists()


def test_what_was_answered_survives_the_servers_sudden_death(start: Start) -> None:
    server = start("--port", "0")
    with openai.OpenAI(base_url=base_url(server), api_key="any", max_retries=0) as client:
        file = client.files.create(file=("notes.txt", b"kept"), purpose="user_data")
    server.kill()
    server.wait()
    again = start("--port", "0")
    with openai.OpenAI(base_url=base_url(again), api_key="any", max_retries=0) as client:
        assert client.files.retrieve(file.id) == file
        assert client.files.content(file.id).read() == b"kept"
    again.send_signal(signal.SIGINT)
    assert again.wait(30) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_log_that_cannot_be_written_fails_nobody(start: Start) -> None:
    with Path("/dev/full").open("w") as log:
        server = start("--port", "0", log=log)
        with openai.OpenAI(base_url=base_url(server), api_key="any", max_retries=0) as client:
            file = client.files.create(file=("notes.txt", b"kept"), purpose="user_data")
            assert client.files.content(file.id).read() == b"kept"


@pytest.fixture
def refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that tells what a server that must not start says: one line on stderr, nothing on stdout."""

    def tell(**settings: object) -> str:
        assert begin(Settings(**{"data_dir": tmp_path / "data", "port": 0, **settings})) == 1  # type: ignore[arg-type]
        out, err = capsys.readouterr()
        assert "ready" not in out
        [line] = err.splitlines()
        return line

    return tell


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com"])
def test_an_address_that_others_reach_is_not_served_without_keys(
    refusal: Callable[..., str], host: str, tmp_path: Path
) -> None:
    assert f"auth is off and the host {host}" in refusal(host=host, auth="off")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.5"])
def test_every_loopback_address_is_fine(host: str) -> None:
    with closing(listen(host, 0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP, "asyncio looks at it before it sends without delay"
        assert listener.getsockname()[1] > 0


def test_an_occupied_port_is_one_clear_line(refusal: Callable[..., str]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        told = refusal(port=port)
    assert f"port {port} on 127.0.0.1 cannot be used: Address already in use" in told
    assert "--port" in told


def test_a_second_server_on_the_data_folder_is_refused_and_the_first_serves_on(
    open_house: Any, refusal: Callable[..., str], tmp_path: Path
) -> None:
    with open_house(tmp_path / "data") as first:
        assert f"is in use by another server (process {os.getpid()})" in refusal()
        assert httpx2.get(f"{first.base_url}/models", trust_env=False).status_code == 200


def test_a_data_folder_of_a_newer_version_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "VERSION").write_text(str(VERSION + 1))
    assert f"has version {VERSION + 1}" in refusal()


def test_a_database_of_a_newer_release_is_refused(open_house: Any, refusal: Callable[..., str], tmp_path: Path) -> None:
    with open_house(tmp_path / "data"):
        pass
    with closing(sqlite3.connect(tmp_path / "data" / "tunesmith.db")) as db, db:
        db.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
    assert "newer release" in refusal()
    assert "newer release" in refusal()  # the folder was let go: the next try comes as far


def test_a_folder_that_cannot_be_written_is_refused(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file stands here")
    assert "cannot be used" in refusal()


def test_an_unreachable_database_is_refused(refusal: Callable[..., str]) -> None:
    pytest.importorskip("psycopg")
    assert "database" in refusal(database_url="postgresql://nobody@127.0.0.1:1/none")

"""The last release of each major version of the official client walks every operation of a real server, and trains."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

WALK = Path(__file__).parent / "sdk_walk.py"
READY = "Tunesmith is ready at "
#: Environments of earlier majors: folders separated by colons, each with `bin/python` and one `openai`.
VENVS = [Path(folder) for folder in os.environ.get("TUNESMITH_SDK_VENVS", "").split(":") if folder]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("walk")
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "serve", "--port", "0", "--data-dir", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert server.stdout is not None
    line = server.stdout.readline()
    assert line.startswith(READY), (folder / "server.log").read_text()
    yield line.removeprefix(READY).strip()
    server.send_signal(signal.SIGTERM)
    assert server.wait(30) == 0, (folder / "server.log").read_text()
    server.stdout.close()


def walk(python: str | Path, base_url: str) -> str:
    done = subprocess.run([str(python), str(WALK), base_url], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_current_client_walks_every_operation(base_url: str) -> None:
    assert walk(sys.executable, base_url).startswith("openai 3.")


@pytest.mark.parametrize("major", [1, 2])
def test_an_earlier_major_walks_every_operation(base_url: str, major: int) -> None:
    found = [venv for venv in VENVS if venv.name == str(major)]
    if not found:
        pytest.skip(f"no openai {major}.x here: name a folder that ends in /{major} in TUNESMITH_SDK_VENVS")
    assert walk(found[0].absolute() / "bin/python", base_url).startswith(f"openai {major}.")

"""The pool: bounded, alive after a lost zygote, fresh after many calls; levels, and the environment's making."""

import asyncio
import os
import signal
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunesmith.graders.base import GraderRefused, GradingFailed, Sample
from tunesmith.graders.sandbox import packages
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.pool import Sandbox
from tunesmith.graders.sandbox.probe import LEVELS

ONE = "def grade(sample, item):\n    return 1"
SLEEPS = "import time\ndef grade(sample, item):\n    time.sleep(item['s'])\n    return 1"
SAMPLE = Sample.of_text("x")


def found(sandbox: Sandbox) -> None:
    level = asyncio.run(sandbox.found())
    sandbox.close()
    if level.level == "none":
        pytest.skip(level.way_out)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment(tmp_path / "grader-env")
    found(Sandbox(made))
    return made


def with_sandbox(sandbox: Sandbox, story: Any) -> None:
    """Run a story with a sandbox, and close it."""

    async def play() -> None:
        try:
            await story(sandbox)
        finally:
            sandbox.close()

    asyncio.run(play())


def gone(pid: int) -> bool:
    """Say whether a process is gone, at the latest after five seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_nothing_is_started_before_it_is_asked_for(environment: Environment) -> None:
    assert Sandbox(environment).pids == []


def test_no_more_calls_run_at_once_than_may(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        await sandbox.grade(ONE, SAMPLE)
        began = time.monotonic()
        await asyncio.gather(*(sandbox.grade(SLEEPS, Sample.of_text("", {"s": 0.5})) for _ in range(4)))
        assert 1.0 <= time.monotonic() - began < 1.9

    with_sandbox(Sandbox(environment, n_at_once=2), story)


def test_a_lost_zygote_costs_nobody_a_score(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        await sandbox.grade(ONE, SAMPLE)
        lost = sandbox.pids[0]
        call = asyncio.create_task(sandbox.grade(SLEEPS, Sample.of_text("", {"s": 0.5})))
        await asyncio.sleep(0.2)
        inner = children(lost)
        os.kill(lost, signal.SIGKILL)
        assert await call == 1
        assert sandbox.pids != [lost]
        assert all(map(gone, [lost, *inner]))

    with_sandbox(Sandbox(environment), story)


def test_a_zygote_that_is_lost_again_and_again_is_our_failure(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        await sandbox.grade(ONE, SAMPLE)
        call = asyncio.create_task(sandbox.grade(SLEEPS, Sample.of_text("", {"s": 5})))
        for _ in range(2):
            await asyncio.sleep(1)
            os.kill(sandbox.pids[0], signal.SIGKILL)
        with pytest.raises(GradingFailed) as failed:
            await call
        assert failed.value.flag == "python_grader_server_error"
        assert await sandbox.grade(ONE, SAMPLE) == 1

    with_sandbox(Sandbox(environment), story)


def test_a_zygote_makes_way_after_its_calls(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        seen = set[int]()
        for _ in range(7):
            assert await sandbox.grade(ONE, SAMPLE) == 1
            seen.update(sandbox.pids)
        assert len(seen) == 3
        await sandbox.grade(ONE, SAMPLE)
        assert sum(not gone(pid) for pid in seen - set(sandbox.pids)) == 0

    with_sandbox(Sandbox(environment, n_calls_each=3), story)


def test_a_call_that_nobody_waits_for_is_ended(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        await sandbox.grade(ONE, SAMPLE)
        root = sandbox.pids[0]
        zygote = (children(root) or [root])[0]
        call = asyncio.create_task(sandbox.grade(SLEEPS, Sample.of_text("", {"s": 60})))
        await asyncio.sleep(0.3)
        running = children(zygote)
        assert len(running) == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert gone(running[0])
        assert await sandbox.grade(ONE, SAMPLE) == 1
        assert sandbox.pids == [root]

    with_sandbox(Sandbox(environment), story)


def test_close_ends_everything_and_a_later_call_starts_anew(environment: Environment) -> None:
    sandbox = Sandbox(environment)

    async def story(_: Sandbox) -> None:
        await sandbox.grade(ONE, SAMPLE)
        root = sandbox.pids[0]
        everybody = [root, *children(root)]
        call = asyncio.create_task(sandbox.grade(SLEEPS, Sample.of_text("", {"s": 60})))
        await asyncio.sleep(0.2)
        everybody += [pid for one in children(root) for pid in children(one)]
        call.cancel()
        sandbox.close()
        assert all(map(gone, everybody))
        assert await sandbox.grade(ONE, SAMPLE) == 1

    with_sandbox(sandbox, story)


def test_a_sandbox_works_in_one_loop_after_another(environment: Environment) -> None:
    sandbox = Sandbox(environment)
    for _ in range(2):
        assert asyncio.run(sandbox.grade(ONE, SAMPLE)) == 1
    sandbox.close()


def test_zygotes_die_with_their_server(environment: Environment) -> None:
    program = (
        "import asyncio, os, sys; from pathlib import Path\n"
        "from tunesmith.graders.base import Sample; from tunesmith.graders.sandbox.environment import Environment\n"
        "from tunesmith.graders.sandbox.pool import Sandbox\n"
        "async def main():\n"
        "    sandbox = Sandbox(Environment(Path(sys.argv[1])))\n"
        f"    await sandbox.grade({ONE!r}, Sample.of_text(''))\n"
        "    print('pid', sandbox.pids[0], flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )

    async def story() -> None:
        words = [sys.executable, "-c", program, str(environment.folder)]
        server = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        assert server.stdout is not None
        while not (line := await server.stdout.readline()).startswith(b"pid "):
            assert line
        root = int(line.split()[1])
        everybody = [root, *children(root)]
        server.kill()
        await server.wait()
        assert all(map(gone, everybody))

    asyncio.run(story())


def test_without_a_sandbox_everything_is_refused_with_the_way_out(environment: Environment) -> None:
    async def story(sandbox: Sandbox) -> None:
        with pytest.raises(GraderRefused) as refused:
            await sandbox.check(ONE, None)
        assert refused.value.field == ""
        assert "user namespaces or Landlock" in refused.value.message
        with pytest.raises(GradingFailed) as failed:
            await sandbox.grade(ONE, SAMPLE)
        assert failed.value.flag == "python_grader_server_error"
        assert sandbox.pids == []

    with_sandbox(Sandbox(environment, level="none"), story)


def test_a_probe_without_an_answer_is_made_again(tmp_path: Path) -> None:
    plain = Environment(tmp_path / "none")
    found(Sandbox(plain))
    flaky = tmp_path / "python"
    once = f"if [ ! -e {tmp_path}/tried ]; then touch {tmp_path}/tried; exit 1; fi"
    flaky.write_text(f'#!/bin/sh\n{once}\nexec {plain.python} "$@"\n')
    flaky.chmod(0o755)

    async def story(sandbox: Sandbox) -> None:
        assert (await sandbox.found()).level in LEVELS[:-1]
        assert (tmp_path / "tried").exists()

    with_sandbox(Sandbox(Environment(tmp_path / "none", python=str(flaky))), story)


def test_an_interpreter_that_is_not_there_is_no_sandbox(tmp_path: Path) -> None:
    sandbox = Sandbox(Environment(tmp_path / "none", python=str(tmp_path / "python")))
    found_level = asyncio.run(sandbox.found())
    assert found_level.level == "none"
    assert "No such file" in found_level.reasons[0]


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("import json", "light"),
        ("import numpy as np", "numpy"),
        ("    from numpy.linalg import norm", "numpy"),
        ("import re, numpy", "numpy"),
        ("import numpy\nfrom sklearn import metrics", "full"),
        ("import yaml", "full"),
        ("# import numpy", "light"),
    ],
)
def test_a_source_goes_to_the_zygote_that_has_imported_the_most_of_it(source: str, kind: str) -> None:
    assert packages.kind_for(source) == kind


def wheel(folder: Path, name: str, version: str, body: str) -> None:
    """Write a wheel of one module."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", body)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


@pytest.mark.slow
def test_an_environment_is_made_with_what_can_be_had(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pip itself, from a wheel of the test's own: one package of another version than the image's, the other none."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    # as joblib and matplotlib do when they are imported
    scratch = "import tempfile\nwith tempfile.NamedTemporaryFile() as file:\n    file.write(b'5')\n"
    wheel(wheels, "numpy", "9.9.9", f"{scratch}class _N: pass\ninteger = floating = bool_ = _N\nX = 5")
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    source = "import numpy\ndef grade(sample, item):\n    return numpy.X"

    async def story(sandbox: Sandbox) -> None:
        with pytest.raises(GraderRefused, match="grader-env install"):
            await sandbox.check(source, None)
        got = await asyncio.to_thread(environment.install, full=False, tell=told.append)
        assert got == {"numpy": "9.9.9"} == environment.installed
        await sandbox.check(source, None)  # the zygotes that were there before know of it
        assert await sandbox.grade(source, SAMPLE) == 5

    with_sandbox(Sandbox(environment), story)
    assert any("rapidfuzz is left out" in line for line in told)
    assert not environment.folder.with_name("grader-env.new").exists()

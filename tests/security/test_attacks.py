"""Strangers attack: none gets what it wants, at any level that this host gives, and the next call works."""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from security.world import PREFIX, Watch, World, settled
from tunesmith.graders.base import GraderRefused, GradingFailed, Sample
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.layers import Limits
from tunesmith.graders.sandbox.pool import Sandbox
from tunesmith.graders.sandbox.probe import Level

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

LIMITS = Limits(wall_s=1.5, memory_bytes=512 << 20, disk_bytes=64 << 20)
BENIGN = "import math\ndef grade(sample, item):\n    return math.sqrt(item['n']) + len(sample['output_text'])"


def _attacks() -> Iterator[tuple[str, str]]:
    for path in sorted((Path(__file__).parent / "attacks").glob("*.txt")):
        blocks = re.split(r"^=== (.*)\n", path.read_text(), flags=re.MULTILINE)[1:]
        yield from zip(blocks[::2], blocks[1::2], strict=True)


ATTACKS = dict(_attacks())


class Ground:
    """A sandbox at one level among planted things."""

    def __init__(self, level: Level, folder: Path) -> None:
        python = None
        # a root's own interpreter may lie where nobody else looks; the reduced level has no mounts to show it
        closed = any(not folder.stat().st_mode & 1 for folder in Path(sys.base_prefix).parents)
        if level == "reduced" and os.geteuid() == 0 and closed:
            python = "/usr/bin/python3"
        self.level = level
        self.world = World()
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(Environment(folder / "none", python=python), level=level, limits=LIMITS, n_at_once=2)
        self.reasons = self.runner.run(self.sandbox.found())

    def grade(self, source: str, item: dict[str, Any]) -> float:
        return self.runner.run(self.sandbox.grade(source, Sample.of_text("abc", item)))

    def close(self) -> None:
        self.sandbox.close()
        self.runner.close()
        self.world.close()


@pytest.fixture(scope="module", params=["full", "reduced"])
def ground(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    made = Ground(request.param, tmp_path_factory.mktemp("graders"))
    try:
        if made.reasons.level == "none":
            pytest.skip(f"this host does not give the level {request.param}: {made.reasons.reasons}")
        assert made.grade(BENIGN, {"n": 4}) == 5.0
        yield made
    finally:
        made.close()


def test_there_are_attacks_of_every_class() -> None:
    assert len(ATTACKS) >= 60
    assert {name.partition(":")[0] for name in ATTACKS} == {
        "env", "file", "proc", "kill", "ptrace", "net", "survive", "bomb", "memory", "disk", "shm", "exec", "calls", "state",
        "result", "crash", "signals", "time",
    }  # fmt: skip


def test_the_planted_things_can_be_had_without_a_sandbox(ground: Ground) -> None:
    """Else an attack could not succeed, and its test not fail."""
    item = json.dumps(ground.world.item(ground.sandbox.pids[0]))
    for name in (
        "env: reads its own environment",
        "file: reads a file that every user may read",
        "file: reads the database",
        "kill: asks whether the server lives",
        "proc: counts the host's processes",
        "net: connects to a port of the host",
        "exec: runs a program beside it",
        "shm: makes POSIX shared memory",
    ):
        program = f"{ATTACKS[name]}\nimport json, sys\nsys.exit(0 if grade({{}}, json.loads(sys.argv[1])) else 3)"
        done = subprocess.run([sys.executable, "-c", program, item], capture_output=True, check=False)
        assert done.returncode == 0, f"{name}: {done.stderr.decode()}"
    assert any("somebody came" in harm for harm in ground.world.harm())
    assert ground.world.harm() == []


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_fails_and_the_next_call_works(ground: Ground, name: str) -> None:
    roots = ground.sandbox.pids
    n_before = settled(roots, 2 * len(roots) if ground.level == "full" else len(roots))
    score, failure = 0.0, GradingFailed("python_grader_runtime_error", "")
    began = time.monotonic()
    with Watch(roots) as watch:
        try:
            score = ground.grade(ATTACKS[name], ground.world.item(roots[0]))
        except GradingFailed as told:
            failure = told
    took_s = time.monotonic() - began
    assert score == 0.0, f"it got {score}"
    assert failure.flag == "python_grader_runtime_error", failure.details
    assert PREFIX not in failure.details
    assert len(failure.details.encode()) <= 8192
    assert failure.details or not name.startswith(("result: writes", "time: ", "crash: ", "signals: "))
    assert ground.grade(BENIGN, {"n": 4}) == 5.0
    assert ground.world.harm() == []
    assert ground.sandbox.pids == roots, "the zygote was lost"
    assert settled(roots, n_before) == n_before, "a process survives"
    assert watch.n_bytes < LIMITS.memory_bytes + LIMITS.disk_bytes + (200 << 20)
    assert watch.n_processes <= n_before + 2
    assert took_s < LIMITS.wall_s + 2


@pytest.mark.parametrize(
    "name",
    [
        "env: reads the environment of the server",
        "file: reads the database",
        "file: overwrites a file that every user may write",
        "proc: counts the host's processes",
        "kill: kills the victim",
        "net: connects to a port of the host",
        "exec: runs a shell",
        "survive: forks",
        "memory: one large block",
        "shm: makes POSIX shared memory",
        "calls: a user namespace",
        "crash: recursion without a limit",
    ],
)
def test_an_attack_fails_too_where_a_source_is_only_loaded(ground: Ground, name: str) -> None:
    """What `validate` and the creation of a job run of a source is all that stands outside its functions."""
    roots = ground.sandbox.pids
    n_before = settled(roots, 2 * len(roots) if ground.level == "full" else len(roots))
    item = repr(ground.world.item(roots[0]))
    source = f"{ATTACKS[name]}\ngot = grade({{}}, {item})\nif got: raise SystemError('it' + ' got it')\n1 / 0\n"
    with pytest.raises(GraderRefused) as refused:
        ground.runner.run(ground.sandbox.check(source, None))
    assert refused.value.field == "source"
    assert "it got it" not in refused.value.message  # nor do the lines of the source have it so
    assert ground.world.secret not in refused.value.message
    assert ground.grade(BENIGN, {"n": 4}) == 5.0
    assert ground.world.harm() == []
    assert ground.sandbox.pids == roots, "the zygote was lost"
    assert settled(roots, n_before) == n_before, "a process survives"

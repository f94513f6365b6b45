"""Failpoints: nothing without a plan, what the plan says at the visit it says."""

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.core.failpoint import failpoint

Plan = Callable[[str], None]


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Plan:
    return lambda text: monkeypatch.setenv("TUNESMITH_FAILPOINTS", text)


def test_nothing_happens_without_a_plan_or_at_another_point(plan: Plan) -> None:
    failpoint("fp.none")
    for text in ("", "no plan at all", "fp.other=raise", "fp.none=dance"):
        plan(text)
        failpoint("fp.none")


def test_a_full_disk_is_played_at_the_named_visit_only(plan: Plan) -> None:
    plan("fp.other=kill,fp.full=raise@2")
    failpoint("fp.full")
    with pytest.raises(OSError, match="No space left on device") as refused:
        failpoint("fp.full")
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, "fp.full")
    failpoint("fp.full")


def test_a_stall_is_played(plan: Plan) -> None:
    plan("fp.slow=sleep:0.05")
    began = time.monotonic()
    failpoint("fp.slow")
    assert time.monotonic() - began >= 0.05


def test_visits_are_noted_of_every_point_that_is_not_named(plan: Plan, tmp_path: Path) -> None:
    plan(f"fp.named=count,*=note:{tmp_path / 'visits'}")
    for name in ("fp.one", "fp.named", "fp.two", "fp.one"):
        failpoint(name)
    assert (tmp_path / "visits").read_text().split() == ["fp.one", "fp.two", "fp.one"]


def test_a_sudden_death_is_played() -> None:
    program = "from tunesmith.core.failpoint import failpoint; failpoint('fp.dead'); print('alive')"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"TUNESMITH_FAILPOINTS": "fp.dead=kill"}, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")

"""The demonstration as a whole, run as its user runs it, without a terminal; its data is tested in tests/unit/cli."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.cli.demo.house import tagged_processes

pytestmark = pytest.mark.slow
#: Under three minutes is promised for two quiet cores; a busy machine gets more.
LIMIT_S = 900


def _command(temporary: Path) -> tuple[list[str], dict[str, str]]:
    return [sys.executable, "-m", "tunesmith", "demo"], {**os.environ, "TMPDIR": str(temporary), "TUNESMITH_PORT": "1"}


def _left_in(folder: Path) -> list[Path]:
    # importing transformers makes torch create the empty folder of its compiler's cache
    return [path for path in folder.iterdir() if not path.name.startswith("torchinductor_")]


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """Let children hear Ctrl-C even where the tests run in a shell's background, which ignores it and hands that down."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_demonstration_keeps_its_promises(tmp_path: Path) -> None:
    command, environment = _command(tmp_path)
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "\x1b" not in told.stdout
    assert "cancel answered 'cancelled'" in told.stdout
    assert "the last process was gone" in told.stdout
    assert "The job has successfully completed" in told.stdout
    assert "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy" in told.stdout
    base, tuned = re.findall(r": (\d+) % exactly right", told.stdout)[-2:]
    assert int(tuned) >= int(base) + 20
    (polite, right), (tuned_polite, tuned_right) = re.findall(r": (\d+) % polite, (\d+) % right", told.stdout)
    assert int(polite) <= 5
    assert int(tuned_polite) >= 95
    assert int(tuned_right) >= int(right) - 3
    reward, tuned_reward = re.findall(r"mean reward (\d\.\d\d) of", told.stdout)
    assert float(tuned_reward) >= float(reward) + 0.4
    for job in re.findall(r"ftjob-\w+", told.stdout):
        assert tagged_processes(job) == []
    assert _left_in(tmp_path) == []


@pytest.mark.usefixtures("heard_interrupts")
def test_interrupting_leaves_nothing_behind(tmp_path: Path) -> None:
    command, environment = _command(tmp_path)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            if re.search(r"step \d+/", line):
                process.send_signal(signal.SIGINT)
                break
        text += process.stdout.read()
        assert process.wait(60) == 130, text
    assert "Interrupted" in text
    [job] = set(re.findall(r"created (ftjob-\w+)", text))
    assert tagged_processes(job) == []
    assert _left_in(tmp_path) == []

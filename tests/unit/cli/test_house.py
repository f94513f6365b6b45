import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tunesmith.cli.demo import house
from tunesmith.cli.demo.house import House, tagged_processes, wait_until_gone

linux = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")


@linux
def test_processes_of_a_job_are_found_by_their_tag_until_they_are_gone() -> None:
    job = "ftjob-seenfromoutside"
    sleeper = [sys.executable, "-c", "import sys, time; print('up', flush=True); time.sleep(60)"]
    with subprocess.Popen(sleeper, env={**os.environ, "TUNESMITH_JOB": job}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert tagged_processes(job) == [process.pid]
        assert tagged_processes(job[:-1]) == []
        assert wait_until_gone(job, limit_s=0.05) is None
        process.kill()
        assert wait_until_gone(job, limit_s=10) is not None
        assert tagged_processes(job) == []


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("import time; time.sleep(600)", "The server did not start within 0 s: it said nothing"),
        ("import sys; print('no'); sys.exit('tunesmith: the port is taken')", "start: tunesmith: the port is taken"),
    ],
)
def test_a_server_that_does_not_start_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, told: str
) -> None:
    monkeypatch.setattr(house, "SERVE", (sys.executable, "-S", "-c", program))
    monkeypatch.setattr(house, "START_S", 0.3 if "sleep" in program else 60.0)
    with pytest.raises(typer.Exit) as ended, House(tmp_path):
        pass
    assert ended.value.exit_code == 1
    assert told in capsys.readouterr().err

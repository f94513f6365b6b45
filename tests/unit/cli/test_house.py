import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.cli.demo.house import tagged_processes, wait_until_gone

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

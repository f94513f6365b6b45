import json
import os
import subprocess
import sys

import pytest

from tunesmith.core.channel import Report, Task
from tunesmith.supervisor import tag, tree

#: The worker as its supervisor starts it; what it has loaded when it is ready is told by its exit.
PROGRAM = """
import os, sys
from tunesmith.worker import run, spare
begun = spare.prove_tag
def look():
    assert os.environ["OMP_NUM_THREADS"] == "2", "bound before anything is loaded"
    assert "torch" not in sys.modules and "tokenizers" not in sys.modules
    begun()
spare.prove_tag = look
code = run.main(sys.argv[1:])
assert "torch" not in sys.modules, "validation does without"
assert "tunesmith.worker.validate" in sys.modules
sys.exit(code)
"""


class Worker:
    """A spare's worker without a supervisor, and the ends of its pipes."""

    def __init__(self, folder):
        self.reports, report_write = os.pipe()
        control_read, self.control = os.pipe()
        names = {"TUNESMITH_REPORT_FD": str(report_write), "TUNESMITH_CONTROL_FD": str(control_read)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "--spare", "validate", "2"],
            env={**os.environ, **tag.spare_tag(str(folder)), **names}, pass_fds=[report_write, control_read],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(report_write)
        os.close(control_read)

    def close(self):
        self.process.kill()
        self.process.wait(60)
        self.process.stderr.close()
        os.close(self.reports)


@pytest.fixture
def worker(tmp_path):
    made = Worker(tmp_path)
    assert os.read(made.reports, 100) == b"ready\n"
    yield made
    made.close()


def test_a_worker_without_a_task_leaves_with_its_supervisor(worker):
    os.close(worker.control)
    assert worker.process.wait(60) == 0, worker.process.stderr.read()


def test_a_worker_that_is_told_its_task_does_it_as_its_own(worker, tmp_path):
    job = f"ftjob-worker{os.getpid()}"
    spec = {
        "method": "supervised", "method_config": {}, "base_path": str(tmp_path / "no-base"), "context_length": 64,
        "blobs": (tmp_path / "blobs").as_uri(), "training_file": "file-t", "training_key": "files/t",
        "validation_file": None, "validation_key": None, "max_line_bytes": 1000,
    }  # fmt: skip
    task = Task("validate", job, 4, "secret", "none", str(tmp_path), spec)
    (tmp_path / "task.json").write_text(task.to_json())
    assert tree.carries(worker.process.pid, tag.spare_name(str(tmp_path)), 0)
    os.write(worker.control, f"{tmp_path / 'task.json'}\n".encode())
    said = b""
    while part := os.read(worker.reports, 1 << 16):
        said += part
    os.close(worker.control)
    (report,) = [Report.from_mapping(json.loads(line)) for line in said.splitlines()]
    assert (report.kind, report.job, report.attempt) == ("failed", job, 4)
    assert str(tmp_path / "no-base") in report.data["message"]
    assert worker.process.wait(60) == 0, worker.process.stderr.read()

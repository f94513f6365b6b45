import errno
import json
import os
import re
import subprocess
import sys

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Report, Task
from tunesmith.worker import run, validate
from tunesmith.worker.compose import open_blobs
from tunesmith.worker.reporter import PipeControl, WorkerReporter


class StandingClock:
    def now(self):
        return 1.0

    def monotonic(self):
        return 0.0


@pytest.fixture
def ends():
    """The supervisor's ends of both pipes, and the worker's objects over the others."""
    report_read, report_write = os.pipe()
    control_read, control_write = os.pipe()

    def reporter(task):
        return WorkerReporter(report_write, task, StandingClock()), PipeControl(control_read)

    def said():
        return [Report.from_mapping(json.loads(line)) for line in os.read(report_read, 1 << 16).splitlines()]

    yield reporter, said
    for descriptor in (report_read, report_write, control_read, control_write):
        os.close(descriptor)


def task(tmp_path, kind="validate", **spec):
    whole = {
        "method": "supervised", "method_config": {"hyperparameters": {}}, "base_path": str(tmp_path / "no-base"),
        "context_length": 64, "blobs": (tmp_path / "blobs").as_uri(), "training_file": "file-t", "training_key": "files/t",
        "validation_file": None, "validation_key": None, "max_line_bytes": 1000, **spec,
    }  # fmt: skip
    return Task(kind, "ftjob-x", 1, "secret", "socket", str(tmp_path), whole)


def test_blobs_are_opened_where_the_task_says(tmp_path):
    store = open_blobs((tmp_path / "a b").as_uri())
    store.put("files/x", [b"bytes"])
    with LocalBlobs(tmp_path / "a b").open("files/x") as stream:
        assert stream.read() == b"bytes"


def test_an_unknown_store_is_named():
    with pytest.raises(ValueError, match="'s3' in 's3://bucket'; known: file"):
        open_blobs("s3://bucket")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (MemoryError(), "out_of_memory", "The worker ran out of memory."),
        (KeyError("colour"), "server_error", "The worker crashed: KeyError: 'colour'"),
        (
            OSError(errno.EIO, "Input/output error"),
            "server_error",
            "The worker crashed: OSError: [Errno 5] Input/output error",
        ),
        (RuntimeError("x" * 5000), "server_error", "The worker crashed: RuntimeError: xxx"),
    ],
)
def test_a_crash_becomes_the_jobs_error(tmp_path, ends, monkeypatch, capsys, error, code, message):
    def crash(*_):
        raise error

    reporter, said = ends
    monkeypatch.setattr(validate, "run", crash)
    work = task(tmp_path)
    assert run.perform(work, *reporter(work)) == 1
    (report,) = said()
    assert (report.kind, report.data["code"], report.data["param"]) == ("failed", code, None)
    assert report.data["message"].startswith(message)
    assert code == "out_of_memory" or re.search(r" \(run\.py:\d+ in _dispatch\)$", report.data["message"])
    assert len(report.data["message"]) < 1200
    assert type(error).__name__ in capsys.readouterr().err


def test_a_crash_after_the_end_changes_nothing_that_was_said(tmp_path, ends, monkeypatch, capsys):
    def crash_late(work, spec, reporter, control, blobs):
        reporter.validated({"n_examples": 10})
        raise RuntimeError("while leaving")

    reporter, said = ends
    monkeypatch.setattr(validate, "run", crash_late)
    work = task(tmp_path)
    assert run.perform(work, *reporter(work)) == 1
    assert [report.kind for report in said()] == ["validated"]
    assert "while leaving" in capsys.readouterr().err


def test_a_task_that_ends_without_a_word_was_not_done(tmp_path, ends, monkeypatch, capsys):
    reporter, _ = ends
    monkeypatch.setattr(validate, "run", lambda *_: None)
    work = task(tmp_path)
    assert run.perform(work, *reporter(work)) == 1
    assert "without reporting its end" in capsys.readouterr().err


def test_an_unknown_kind_is_named(tmp_path, ends, capsys):
    reporter, said = ends
    work = task(tmp_path, kind="dream")
    assert run.perform(work, *reporter(work)) == 1
    assert "no worker for tasks of kind 'dream'" in said()[0].data["message"]
    assert capsys.readouterr().err


def test_the_process_reads_its_task_reports_and_loads_no_torch_to_validate(tmp_path):
    work = task(tmp_path)
    LocalBlobs(tmp_path / "blobs").put("files/t", [b'{"messages": []}\n'])
    (tmp_path / "task.json").write_text(work.to_json())
    report_read, report_write = os.pipe()
    control_read, control_write = os.pipe()
    program = (
        "import sys; from tunesmith.worker import run; code = run.main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules; sys.exit(code)"
    )
    names = {"TUNESMITH_REPORT_FD": str(report_write), "TUNESMITH_CONTROL_FD": str(control_read)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "task.json")],
        env={**os.environ, **names}, pass_fds=[report_write, control_read], capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [Report.from_mapping(json.loads(line)) for line in os.read(report_read, 1 << 16).splitlines()]
    for descriptor in (report_read, report_write, control_read, control_write):
        os.close(descriptor)
    assert done.returncode == 0, done.stderr
    assert [report.kind for report in said] == ["failed"]
    assert str(tmp_path / "no-base") in said[0].data["message"]


def test_the_threads_are_bound_before_a_library_is_loaded(monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "64")
    run._set_threads({"threads": 3})
    assert os.environ["OMP_NUM_THREADS"] == os.environ["RAYON_NUM_THREADS"] == "3"
    run._set_threads({})
    assert os.environ["OMP_NUM_THREADS"] == "1"

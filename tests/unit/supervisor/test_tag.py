import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.supervisor import tag, tree

#: Takes the tag of its arguments, starts a child, and waits for its end of input.
TAKES = """
import os, subprocess, sys
from tunesmith.supervisor import tag
tag.prove_tag()
try:
    tag.take_tag(sys.argv[1], int(sys.argv[2]))
except tag.NoTag as error:
    sys.exit(str(error))
child = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
child.communicate()
"""


def tagged_process(job, attempt, environment):
    return subprocess.Popen(
        [sys.executable, "-c", TAKES, job, str(attempt)],
        env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_process_and_its_children_carry_the_tag_that_it_took(tmp_path, eventually):
    job = f"ftjob-tag{os.getpid()}"
    process = tagged_process(job, 12, tag.spare_tag(str(tmp_path)))
    child = int(process.stdout.readline())
    eventually(lambda: {found.pid for found in tree.tagged(job, 12)} == {process.pid, child}, "the child has begun")
    assert tree.tagged(tag.spare_name(str(tmp_path))) == []
    assert tree.carries(process.pid, job, 12)
    assert not tree.carries(process.pid, job, 1)
    variables = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
    assert f"PATH={os.environ['PATH']}" in variables, "its other variables are what they were"
    process.communicate()
    assert process.returncode == 0


def test_a_spares_tag_is_its_folders_own(tmp_path):
    names = {tag.spare_name(str(tmp_path / name)) for name in ("a", "b")}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}
    assert tag.spare_tag("a")[tree.ATTEMPT_TAG].isdigit()


@pytest.mark.parametrize("environment", [{tree.JOB_TAG: "spare", tree.ATTEMPT_TAG: "0000"}, tag.spare_tag("x")])
def test_a_tag_that_has_no_room_is_refused(environment):
    process = tagged_process("ftjob-" + "x" * 70, 1, environment)
    _, said = process.communicate()
    assert process.returncode == 1
    assert "too few for ftjob-x" in said


def test_a_process_that_was_started_without_a_tag_cannot_take_one():
    program = "import os; from tunesmith.supervisor import tag; os.environ.update(tag.spare_tag('x')); tag.prove_tag()"
    plain = {name: value for name, value in os.environ.items() if name not in (tree.JOB_TAG, tree.ATTEMPT_TAG)}
    done = subprocess.run([sys.executable, "-c", program], env=plain, capture_output=True, text=True, check=False)
    assert "environ does not show" in done.stderr
    assert done.returncode == 1


def test_where_linux_is_not_only_children_are_tagged(monkeypatch):
    monkeypatch.setattr(tree, "LINUX", False)
    monkeypatch.setenv(tree.JOB_TAG, "spare")
    monkeypatch.setenv(tree.ATTEMPT_TAG, "0")
    tag.prove_tag()
    tag.take_tag("ftjob-x", 3)
    assert json.dumps([os.environ[tree.JOB_TAG], os.environ[tree.ATTEMPT_TAG]]) == '["ftjob-x", "3"]'

"""A backup of a server that trains, restored: its checkpoint chats, and its job goes on from there to the same end."""

import signal

import pytest
from typer.testing import CliRunner

from tunesmith.cli.main import app
from tunesmith.supervisor import tree

pytestmark = pytest.mark.slow


def run(*arguments):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_a_restored_job_goes_on_from_its_checkpoint_which_chats(make_server, eventually, tmp_path):
    server = make_server(failpoints="train.step=sleep:0.15")
    job = server.create(server.upload(), n_epochs=2)
    eventually(lambda: len(server.steps(job)) > 12, "steps after the first checkpoint")
    run("backup", tmp_path / "backup", "--data-dir", server.data_dir, "--base-url", server.url)
    assert server.status(job) == "running"
    server.kill(signal.SIGTERM)
    tree.sweep(job)
    told = run("restore", tmp_path / "backup", "--data-dir", tmp_path / "new")
    assert job in told

    server.data_dir, server.failpoints = tmp_path / "new", ""
    server.start()
    with server.client as client:
        (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job).data
        assert checkpoint.step_number == 10
        answer = client.chat.completions.create(
            model=checkpoint.fine_tuned_model_checkpoint, messages=[{"role": "user", "content": "number 3"}], max_tokens=3
        )
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0
    server.reaches(job, "succeeded")
    assert server.steps(job) == list(range(1, 21))
    texts = server.texts(job)
    assert "The installation was restored from a backup; the job goes on from its checkpoint at step 10" in texts
    assert "Fine-tuning job continues after step 10" in texts

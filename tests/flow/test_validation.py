"""What a user sees of bad training files, at the upload and in the job that was to use them; real processes."""

import json
from typing import Any

import openai
import pytest

from tunesmith.supervisor import tree

UNTIL_DELETED = "worker.validate=sleep:3"


def row(user: str = "a", assistant: str = "b", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant, **more}]}


def upload(server: Any, content: bytes, purpose: Any = "fine-tune") -> str:
    with server.client as client:
        return client.files.create(file=("rows.jsonl", content), purpose=purpose).id


def lines(*rows: dict[str, Any]) -> bytes:
    return b"\r\n".join(json.dumps(item).encode() for item in rows)


def test_bad_files_are_refused_at_the_upload_or_fail_their_job(make_server):
    server = make_server(max_line_bytes=5000, sampler_warm=False)
    jsonl = "Expected file to have JSONL format, where every line is a valid JSON dictionary."
    for content, words in (
        (b"not JSON\n", f"{jsonl} Line 1 is not valid JSON"),
        (b'{"a": "\xff"}\n', f"{jsonl} Line 1 is not valid UTF-8"),
        (lines(row(), row("x" * 6000)), f"{jsonl} Line 2 is longer than 5,000 bytes"),
        (b"", "The file is empty: 0 bytes arrived"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            upload(server, content)
        assert words in caught.value.message

    begin = "The job failed due to an invalid training file. Invalid file format. Example 11"
    for rows, code, words in (
        ([row()] * 9, "invalid_n_examples", "Training file has 9 example(s), but must have at least 10 examples"),
        ([*[row()] * 10, {"messages": [{"role": "wizard"}]}], "invalid_training_file", f"{begin}, message 1 No match for"),
        ([*[row()] * 10, row(weight=0.5)], "invalid_training_file", f"{begin}, message 2 weight must be 0 or 1, not 0.5"),
        ([*[row()] * 10, row("x" * 300)], "invalid_training_file", f"{begin}: trains on nothing: the row has "),
    ):
        job = server.create(upload(server, lines(*rows)))
        failed = server.reaches(job, "failed")
        assert (failed.error.code, failed.error.param) == (code, "training_file")
        assert failed.error.message.startswith(words)
        assert server.events(job)[-1].level == "error"
        assert server.texts(job)[-1] == failed.error.message


def test_a_training_file_deleted_while_it_is_validated(make_server, eventually):
    server = make_server(failpoints=UNTIL_DELETED, sampler_warm=False)
    file = server.upload()
    job = server.create(file)
    eventually(lambda: len(tree.tagged(job)) >= 2, "the validation runs")
    with server.client as client:
        client.files.delete(file)
    failed = server.reaches(job, "failed")
    assert failed.error.code == "deleted_training_file"
    assert failed.error.param == "training_file"
    assert failed.error.message == "The job failed because the training file was deleted"


def test_what_a_valid_job_is_told(make_server):
    server = make_server(failpoints="worker.train=sleep:600", sampler_warm=False)
    file = upload(server, b"\xef\xbb\xbf" + lines(*[row()] * 12, row("a", "b" * 300)))
    with server.client as client:
        job = client.fine_tuning.jobs.create(model="tiny", training_file=file).id
    server.jobs.append(job)
    done = server.reaches(job, "queued", "running")
    assert done.hyperparameters.model_dump() == {"n_epochs": 7, "batch_size": 1, "learning_rate_multiplier": 1.0}
    warning = next(event for event in server.events(job) if event.level == "warn")
    assert warning.message.startswith("1 of 13 examples of the training file exceed the context of tiny (256 tokens)")
    assert " For longer rows, use tunesmith-nano (" in warning.message
    assert server.texts(job).index("Files validated, moving job to queued state") > 0
    server.cancel(job)

"""What the pages say in words, and the request that the form writes."""

import json
import shlex

import pytest

from tunesmith.dashboard import snippets
from tunesmith.dashboard.me import Me
from tunesmith.dashboard.rows import first_rows, rows_at, said
from tunesmith.dashboard.shapes import filtered, lasting, newest, number, pairs, size, split

JOB = {"id": "ftjob-1", "user_provided_suffix": "Tone", "model": "m", "status": "running", "method": {"type": "dpo"}}
JOB |= {"fine_tuned_model": None, "metadata": {"team": "a"}}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, ""), (0.4, "0 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h"), (-3, "0 s")],
)
def test_durations(seconds, told):
    assert lasting(seconds) == told


def test_sizes_and_numbers():
    assert [size(n) for n in (0, 999, 1_500, 2_000_000, 5e12)] == ["0 B", "999 B", "1.5 KB", "2.0 MB", "5000.0 GB"]
    assert [number(n) for n in (None, 1_000_000, 0.123456, True)] == ["", "1,000,000", "0.1235", "True"]


def test_filters_leave_what_all_of_them_leave():
    assert filtered([JOB], text="tone", states=["running"], methods=["dpo"], models=["m"]) == [JOB]
    assert filtered([JOB], text="team") == [JOB]
    assert filtered([JOB], states=["failed"]) == []
    assert filtered([JOB], methods=["supervised"]) == []


def test_metadata_as_it_is_written():
    assert pairs(" a=1, b = x=y ,") == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match="'c' is no pair"):
        pairs("a=1, c")


def test_the_playground_begins_with_the_model_that_was_made_last():
    models = ["base", "ft:base:o::b:ckpt-step-9", "ft:base:o:new:a", "ft:base:o:old:a"]
    assert newest(models) == "ft:base:o:new:a"
    assert newest(models[:2]) == models[1]
    assert newest(models[:1]) == "base"


def test_the_request_as_code_is_the_request():
    body = snippets.request(
        "reinforcement", hyperparameters={"n_epochs": 2}, grader={"type": "string_check"}, model="m", training_file="file-1",
        validation_file=None, suffix="it's", seed=None, metadata={},
    )  # fmt: skip
    assert body == {
        "model": "m", "training_file": "file-1", "suffix": "it's",
        "method": {
            "type": "reinforcement",
            "reinforcement": {"hyperparameters": {"n_epochs": 2}, "grader": {"type": "string_check"}},
        },
    }  # fmt: skip
    server = snippets.Server("http://x/v1")
    words = shlex.split(snippets.curl(server, body).replace("\\\n", " "))
    assert json.loads(words[-1]) == body
    called = {}
    code = snippets.python(server, body).partition("client.fine_tuning.jobs.create")[2].partition("\nprint")[0]
    exec(f"called.update(dict{code})", {"called": called})
    assert called == body


def test_code_names_the_project_and_a_key_where_they_are_wanted():
    keyed = snippets.Server("http://x/v1", project="proj_a")
    assert "project='proj_a'" in snippets.python(keyed, {})
    assert "api_key" not in snippets.python(keyed, {})
    assert "-H 'OpenAI-Project: proj_a'" in snippets.curl(keyed, {})
    assert "Bearer $OPENAI_API_KEY" in snippets.curl(keyed, {})
    free = snippets.Server("http://x/v1", keyed=False)
    assert "api_key='none-needed'" in snippets.python(free, {})
    assert "Authorization" not in snippets.curl(free, {})


def test_code_is_as_narrow_as_its_place():
    grader = {"type": "multi", "graders": {name: {"type": "string_check", "name": name} for name in ("exact", "near")}}
    body = snippets.request("reinforcement", hyperparameters={"n_epochs": 2}, grader=grader, model="m")
    lines = snippets.python(snippets.Server("http://127.0.0.1:8000/v1", keyed=False), body).splitlines()
    assert max(map(len, lines)) <= 80


def test_rows_are_shown_as_they_are_and_told_where_they_are_not():
    content = b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "hi"}], "answer": 4}\n\n[1]\n{broken\n'
    rows = first_rows(content)
    assert [(row.line, row.problem is None) for row in rows] == [(1, True), (3, False), (4, False)]
    assert said(rows[0].parts["messages"][0]) == "hi"
    assert rows[0].other == {"answer": 4}
    answer = {"role": "assistant", "content": None, "tool_calls": [1]}
    pair = {"input": {"messages": [{"role": "user", "content": "q"}]}, "preferred_output": [answer]}
    [row] = first_rows(json.dumps(pair).encode())
    assert list(row.parts) == ["input", "preferred_output"]
    assert said(row.parts["preferred_output"][0]) == "[1]"


def test_rows_are_found_at_their_lines_as_the_server_counts_them():
    content = '{"n": "a\u2028b"}\n\n{"n": 3}\r\n{broken'.encode()
    assert [(row.line, row.other, row.problem is None) for row in rows_at(content, [4, 3, 9])] == [
        (3, {"n": 3}, True), (4, {}, False),
    ]  # fmt: skip
    assert first_rows(content)[0].other == {"n": "a\u2028b"}


def test_a_template_within_a_multi_grader_belongs_to_its_grader():
    assert split("graders.right.input[0].content") == ("right", "input[0].content")
    assert split("reference") == ("", "reference")


def test_who_may_only_look_is_told_why():
    answer = {"role": "reader", "project": {"id": "proj_1", "name": "Speech"}, "key": {"id": "key_1"}}
    reader = Me.told(answer | {"may": {"change": False, "administer": False}})
    assert "everything of the project Speech" in reader.why_not
    assert Me.told(answer | {"role": "member", "may": {"change": True, "administer": False}}).why_not == ""

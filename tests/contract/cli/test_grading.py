"""`tunesmith graders run`: where answers come from, what goes wrong with one, and what is added up."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from far import FarServer, status
from far.judging import LABEL
from tunesmith.cli.main import app

CHECK = {"type": "string_check", "name": "exact", "operation": "eq", "input": "{{ sample.output_text }}"}
ROWS: list[Any] = [
    {"messages": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}], "answer": "4", "said": ["4"]},
    {"messages": [{"role": "user", "content": "yes?"}], "answer": "yes", "said": []},
    {"item": {"answer": "4"}, "sample": "4", "said": ["4"]},
    {"messages": [{"role": "user", "content": "3+3?"}], "said": ["6"]},
]


@pytest.fixture
def run(judging: Any, tmp_path: Path, far: FarServer) -> Any:
    (tmp_path / "g.json").write_text(json.dumps({**CHECK, "reference": "{{ item.answer }}"}))
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n{\n")

    def ask(*words: str, code: int, grader: str = "g.json") -> Result:
        paths = [str(tmp_path / grader), str(tmp_path / "r.jsonl")]
        done = CliRunner().invoke(app, ["graders", "run", *paths, *words, "--base-url", judging.base_url])
        assert done.exit_code == code, done.output
        return done

    return ask


def told(result: Result) -> list[tuple[Any, ...]]:
    return [(row["line"], row["model_sample"], row["reward"], *row["errors"]) for row in json.loads(result.stdout)["rows"]]


def test_answers_of_the_rows_themselves(run: Any) -> None:
    done = run("--json", code=1)
    assert told(done) == [
        (1, "5", 0.0), (2, None, None, "no_answer"), (3, "4", 1.0), (4, None, None, "no_answer"),
        (6, None, None, "no_answer"),
    ]  # fmt: skip
    all_ = json.loads(done.stdout)
    assert (all_["mean_reward"], all_["n_rows"], all_["n_errors"], all_["error_rate"]) == (0.5, 5, 3, 0.6)


def test_answers_by_a_path_and_by_a_template(run: Any) -> None:
    found = told(run("--sample", "said[0]", "--json", "--concurrency", "1", code=1))
    assert found[:3] == [(1, "4", 1.0), (2, None, None, "no_answer"), (3, "4", 1.0)]
    assert found[3] == (4, "6", 0.0, "invalid_variable_error")
    assert told(run("--sample", "={{ item.said[0] }}", "--limit", "1", "--json", code=0)) == [(1, "=4", 0.0)]
    assert "begins with 'item' or 'sample'" in run("--sample", "{{ x }}", code=2).stderr


def test_answers_of_a_model_asked_again_where_it_was_busy(run: Any, far: FarServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.cli.grading.PAUSE_S", 0.001)
    far.acts.extend([status(400, "too long"), status(429)])
    done = run("--model", "plain", "--max-tokens", "9", "--limit", "2", "--concurrency", "1", code=1)
    first, second, last = done.stdout.splitlines()
    assert (first, second) == ("1\t\t-\tno_answer: is not answered: too long", "2\tyes\t1\t")
    assert last == "1 of 2 rows graded: mean reward 1; 1 with errors (50%)"
    asked = [each["body"] for each in far.asked]
    assert [message["role"] for message in asked[0]["messages"]] == ["user"]
    assert asked[0]["max_completion_tokens"] == 9


@pytest.mark.parametrize(
    ("words", "grader", "message"),
    [
        (["--model", "nope"], "g.json", "The model `nope` does not exist"),
        (["--model", "plain"], "bad.json", "'grader.passing_labels'"),
    ],
)
def test_what_is_wrong_with_all_rows_ends_it_in_one_line(
    words: list[str], grader: str, message: str, run: Any, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text(json.dumps({**LABEL, "passing_labels": ["none"]}))
    done = run(*words, code=1, grader=grader)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert message in done.stderr
    assert "leave one out" in run("--model", "a", "--sample", "b", code=2).stderr


def test_nobody_said_where_answers_come_from(run: Any, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text(json.dumps(ROWS[1]))
    assert "line 1 has no answer (it has answer, messages, said): name its column with --sample" in run(code=2).stderr

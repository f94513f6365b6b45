"""`tunesmith files check`, `split` and `convert`: good files, bad ones, and what is said of each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tunesmith.cli.main import app


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def chat(user: str, answer: str = "ok") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def write(name: str, *rows: Any, end: bytes = b"\n", start: bytes = b"") -> Path:
    path = Path(name)
    path.write_bytes(start + b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + end for row in rows))
    return path


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["files", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def told() -> Callable[..., dict[str, Any]]:
    def ask(*arguments: object, code: int = 0) -> dict[str, Any]:
        return json.loads(run(*arguments, "--json", code=code).stdout)

    return ask


def test_a_good_file_is_counted(told: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    file = write("t.jsonl", *[chat(f"q{n}") for n in range(10)], start=b"\xef\xbb\xbf", end=b"\r\n")
    valid = write("v.jsonl", chat("other"), chat("q3"))
    answer = told("check", file, "--validation", valid, "--price", 5)
    assert (answer["valid"], answer["method"], answer["examples"], answer["n_epochs"]) == (True, "supervised", 10, 10)
    assert answer["cost"]["amount"] == pytest.approx(answer["tokens"] * 10 * 5e-6)
    assert answer["worst"] == [{"line": 4, "reasons": ["is line 2 of the validation file too"]}]
    assert "1 of 2 examples of the validation file are in the training file too: line 2." in answer["warnings"][-1]
    monkeypatch.setenv("TUNESMITH_TRAINING_PRICE", "1")
    words = run("check", file, "--epochs", 2).stdout
    assert "t.jsonl: 10 examples" in words
    assert "trained tokens in 2 epochs" in words
    assert "cost: 0.00 USD" in words


def test_bad_rows_are_told_at_their_lines(told: Callable[..., dict[str, Any]]) -> None:
    bad = {"messages": [{"role": "wizard", "content": "a"}]}
    rows = [*[chat(f"q{n}") for n in range(10)], b"", bad, b"{", chat("q1"), chat("x", "y " * 3000), b'{"a": "\xff"}']
    answer = told("check", write("t.jsonl", *rows), code=1)
    assert (answer["valid"], answer["n_errors"], answer["n_errors"]) == (False, 3, 3)
    assert [(error["line"], error["field"]) for error in answer["errors"]] == [
        (12, "messages[0].role"), (13, None), (16, None),
    ]  # fmt: skip
    assert [row["line"] for row in answer["worst"]] == [12, 13, 16, 15, 14]
    assert answer["worst"][3]["reasons"][0].startswith("loses its last ")
    assert answer["worst"][4]["reasons"] == ["is the same as line 2"]
    words = run("check", "t.jsonl", code=1).stdout
    assert "3 errors" in words
    assert "line 12 messages[0].role: Example 11 (line 12), message 1 No match" in words


def test_other_methods_tell_themselves_by_their_first_row(told: Callable[..., dict[str, Any]]) -> None:
    answer = [{"role": "assistant", "content": "a"}], [{"role": "assistant", "content": "b"}]
    pairs = [
        {"input": {"messages": [{"role": "user", "content": str(n)}]}, "preferred_output": answer[0],
         "non_preferred_output": answer[1]} for n in range(10)
    ]  # fmt: skip
    assert told("check", write("p.jsonl", *pairs))["method"] == "dpo"
    prompts = [{"messages": [{"role": "user", "content": str(n)}], "answer": n} for n in range(10)]
    found = told("check", write("r.jsonl", *prompts))
    assert (found["method"], found["valid"], found["trained_tokens"]) == ("reinforcement", True, None)
    wrong = told("check", "p.jsonl", "--method", "supervised", code=1)
    assert "is in the fine-tune-preference format" in wrong["error"]
    assert told("check", write("few.jsonl", chat("a")), code=1)["error"].startswith("It has 1 example(s)")


@pytest.mark.parametrize("verb", ["check", "split", "convert"])
def test_what_is_no_file_of_rows(verb: str) -> None:
    assert "cannot be read: No such file" in run(verb, "none.jsonl", code=2).stderr
    Path("folder").mkdir()
    assert "folder is a folder" in run(verb, "folder", code=2).stderr
    assert "is empty" in run(verb, write("empty.jsonl"), code=1).stderr


def test_an_array_is_sent_to_convert() -> None:
    file = write("rows.json", [chat("a"), chat("b")])
    for verb in ("check", "split"):
        assert "`tunesmith files convert rows.json`" in run(verb, file, code=1).stderr
    assert "rows.chat.jsonl: 2 examples from chat" in run("convert", file).stdout
    assert [json.loads(line) for line in Path("rows.chat.jsonl").read_text().splitlines()] == [chat("a"), chat("b")]


def test_an_unknown_base_without_a_server() -> None:
    file = write("t.jsonl", chat("a"))
    run("check", file, "--base", "qwen", "--base-url", "http://127.0.0.1:9/v1", code=3)
    Path("nothing").mkdir()
    assert "--base nothing" in run("check", file, "--base", "nothing", code=2).stderr


def test_a_split_is_the_same_each_time_and_parts_no_twins(told: Callable[..., dict[str, Any]]) -> None:
    rows = [chat(f"q{n % 60}") for n in range(100)]
    file = write("a.jsonl", *rows, b"")
    made = told("split", file, "--validation-fraction", 0.2, "--seed", 7)
    assert made["training"]["examples"] + made["validation"]["examples"] == 100
    assert 18 <= made["validation"]["examples"] <= 22
    train, valid = Path("a.train.jsonl").read_text().splitlines(), Path("a.valid.jsonl").read_text().splitlines()
    assert (len(train), len(valid)) == (made["training"]["examples"], made["validation"]["examples"])
    assert not set(train) & set(valid)
    assert sorted(train + valid) == sorted(map(json.dumps, rows))
    assert "is there already" in run("split", file, code=2).stderr
    again = ("--training", "t2", "--validation", "v2", "--validation-fraction", 0.2)
    run("split", file, *again, "--seed", 7)
    assert Path("v2").read_text().splitlines() == valid
    Path("t2").unlink()
    Path("v2").unlink()
    run("split", file, *again, "--seed", 8)
    assert Path("v2").read_text().splitlines() != valid


def test_what_cannot_be_split_leaves_nothing() -> None:
    assert "fewer than two rows that differ" in run("split", write("a.jsonl", chat("a"), chat("a")), code=1).stderr
    assert "Line 2 is not valid JSON" in run("split", write("b.jsonl", chat("a"), b"{"), code=1).stderr
    run("split", write("c.jsonl", chat("a"), chat("b")), "--validation-fraction", 1, code=2)
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "b.jsonl", "c.jsonl"]


def test_rows_that_cannot_be_converted_are_left_out_and_told(told: Callable[..., dict[str, Any]]) -> None:
    file = write("old.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a"}, b"{", {"prompt": "c", "completion": "d"})
    result = run("convert", file, code=1)
    assert "old.chat.jsonl: 2 examples from prompt-completion" in result.stdout
    assert "line 2: 'completion' is missing" in result.stderr
    assert "line 3: is not valid JSON" in result.stderr
    answer = told("convert", file, "-o", "out.jsonl", "--from", "prompt-completion", code=1)
    assert (answer["examples"], [error["line"] for error in answer["errors"]]) == (2, [2, 3])
    assert "is there already" in run("convert", file, code=2).stderr
    assert "is no format known here" in run("convert", write("x.jsonl", {"colour": 1}), code=2).stderr
    assert "no row that can be converted" in run("convert", write("y.jsonl", {"instruction": "a"}), code=1).stderr
    assert not Path("x.chat.jsonl").exists()
    assert not list(Path().glob("*.part"))


def test_a_large_file_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.cli.local._LARGE_BYTES", 1)
    monkeypatch.setattr("tunesmith.cli.progress.QUIET_S", -1.0)
    file = write("t.jsonl", *[chat(f"q{n}") for n in range(10)])
    size = file.stat().st_size
    for verb, doing in (("check", "Checking"), ("split", "Splitting"), ("convert", "Converting")):
        assert f"{doing} t.jsonl: {size} B of {size} B\n" in run(verb, file).stderr


def test_columns_without_a_place_are_told(told: Callable[..., dict[str, Any]]) -> None:
    rows = [{"instruction": "i", "output": "o", "source": "s"}, {"instruction": "i", "output": "o", "source": None}]
    assert told("convert", write("a.jsonl", *rows), "-o", "b.jsonl")["left_out"] == {"source": 1}
    assert "were left out: source (1 rows)." in run("convert", "a.jsonl", "-o", "c.jsonl").stderr


def test_what_is_converted_goes_into_a_pipe() -> None:
    write("a.jsonl", {"prompt": "a", "completion": "b"})
    done = run("convert", "a.jsonl", "-o", "-")
    assert json.loads(done.stdout) == chat("a", "b")
    assert done.stderr == "-: 1 examples from prompt-completion\n"
    assert not Path("-").exists()
    assert "both take stdout" in run("convert", "a.jsonl", "-o", "-", "--json", code=2).stderr

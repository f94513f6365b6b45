"""`python` graders over the wire: sources as they are written for OpenAI, and every way in which one can go wrong."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

ROOT = "/v1/fine_tuning/alpha/graders"
RIGHT = "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])\n"


def python(source: str, **more: Any) -> Any:
    return {"type": "python", "name": "mine", "source": source, **more}


@pytest.fixture(scope="module", autouse=True)
def level(http: httpx2.Client) -> str:
    """Wait for the level that this host gives."""
    end = time.monotonic() + 60
    while (found := http.get("/readyz").json()["sandbox"]) == "probing":
        assert time.monotonic() < end
        time.sleep(0.05)
    if found == "none":
        pytest.skip("this host gives no sandbox")
    return found


def flags(answer: dict[str, Any]) -> dict[str, str | None]:
    """Return the flags that are set, with their details."""
    errors = answer["metadata"]["errors"]
    return {name: errors[f"{name}_details"] for name, value in errors.items() if value is True}


def run(client: openai.OpenAI, grader: Any, sample: str = "x", **item: Any) -> dict[str, Any]:
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item).to_dict()


def test_a_source_is_echoed_and_scores(client: openai.OpenAI, conforms: Callable[..., None]) -> None:
    for grader in (python(RIGHT), python(RIGHT, image_tag="2025-05-08")):
        told = client.fine_tuning.alpha.graders.validate(grader=grader)
        conforms(told, "ValidateGraderResponse")
        assert told.to_dict() == {"grader": grader}
        for sample, reward in (("Paris", 1.0), ("Rome", 0.0)):
            answer = run(client, grader, sample, answer="Paris")
            conforms(answer, "RunGraderResponse")
            assert (answer["reward"], flags(answer), answer["metadata"]["type"]) == (reward, {}, "python")


def test_it_is_one_of_the_graders_of_a_formula(client: openai.OpenAI) -> None:
    same = {"type": "string_check", "name": "same", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
            "operation": "eq"}  # fmt: skip
    grader: Any = {"type": "multi", "name": "both", "graders": {"mine": python(RIGHT), "same": same},
                   "calculate_output": "2 * mine + same"}  # fmt: skip
    answer = run(client, grader, "Paris", answer="Paris")
    assert (answer["reward"], answer["sub_rewards"]) == (3.0, {"mine": 1.0, "same": 1.0})
    answer = run(client, grader, "Paris", other="Paris")
    assert answer["reward"] == 0.0
    assert "KeyError: 'answer'" in str(flags(answer)["python_grader_runtime_error"])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("return None", "not None"),
        ("return float('nan')", "finite"),
        ("return float('-inf')", "finite"),
        ("return '0.5'", "type str"),
        ("return 10 ** 400", "too large"),
        ("return grade(sample, item)", "RecursionError"),
        ("raise ValueError('because')", "ValueError: because"),
        ("import os; os._exit(0)", "before it returned"),
        ("import os; os.fork()", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "PermissionError"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("return len(bytearray(3 << 30))", "more memory than the 2048 MB"),
    ],
)
def test_a_bad_end_is_an_answer_and_the_next_call_works(
    client: openai.OpenAI, conforms: Callable[..., None], line: str, told: str
) -> None:
    answer = run(client, python(f"def grade(sample, item):\n    {line}\n"))
    conforms(answer, "RunGraderResponse")
    assert answer["reward"] == 0.0
    ((flag, details),) = flags(answer).items()
    assert flag == "python_grader_runtime_error"
    assert told in str(details)
    assert run(client, python(RIGHT), "x", answer="x")["reward"] == 1.0


@pytest.mark.parametrize(
    ("changed", "param", "told"),
    [
        ({"source": "def score(sample, item): return 1"}, "grader.source", "must define a function"),
        ({"source": "def grade(sample): return 1"}, "grader.source", "exactly two"),
        ({"source": "def grade(sample, item) return 1"}, "grader.source", "not Python"),
        ({"source": "1 / 0"}, "grader.source", "ZeroDivisionError"),
        ({"source": "#" * 256 * 1024}, "grader.source", "262144 bytes"),
        ({"source": f"import sklearn\n{RIGHT}"}, "grader.source", "tunesmith grader-env install --full"),
        ({"image_tag": "2026-01-01"}, "grader.image_tag", "2025-05-08"),
        ({"timeout": 1}, "grader.timeout", "timeout"),
    ],
)
def test_what_could_not_work_is_refused_with_the_field(http: httpx2.Client, changed: Any, param: str, told: str) -> None:
    for verb, more in (("validate", {}), ("run", {"model_sample": "x", "item": {}})):
        answer = http.post(f"{ROOT}/{verb}", json={"grader": python(RIGHT) | changed, **more})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == param
        assert told in error["message"]


def test_without_a_sandbox_a_source_is_refused_with_the_way_out(
    open_house: Callable[..., AbstractContextManager[Any]], tmp_path: Path
) -> None:
    """An environment whose interpreter is gone is one in which no sandbox can be had."""
    (tmp_path / "data" / "grader-env").mkdir(parents=True)
    (tmp_path / "data" / "grader-env" / "tunesmith-graders.json").write_text("{}")
    with open_house(tmp_path / "data") as served, httpx2.Client(base_url=served.root) as http:
        answer = http.post(f"{ROOT}/validate", json={"grader": python(RIGHT)})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["param"] == "grader"
        assert "No such file" in error["message"]
        assert "Docker" in error["message"]
        assert http.get("/readyz").json()["sandbox"] == "none"
        same = {"type": "string_check", "name": "a", "input": "x", "reference": "x", "operation": "eq"}
        assert http.post(f"{ROOT}/validate", json={"grader": same}).status_code == 200

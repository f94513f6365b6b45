"""All three forms: the first row tells a file of another method, and any line is a row or a problem."""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.pairs import PairForm
from tunesmith.data.prompts import PromptForm
from tunesmith.data.rows import ChatForm, Form, InvalidRows, Placed, Problems, scan_rows

FORMS: dict[str, Form[Placed]] = {form.name: form for form in (ChatForm(), PairForm(), PromptForm())}
USER, ANSWER = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
OTHER = {"role": "assistant", "content": "c"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "supervised": [{"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER, USER, OTHER], "tools": []}],
    "dpo": [
        {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [OTHER]},
        {"input": {"messages": [USER]}, "preferred_completion": [ANSWER], "non_preferred_completion": [OTHER]},
    ],
    "reinforcement": [{"messages": [USER], "answer": 4}, {"messages": [USER, ANSWER, USER], "input": "x"}],
}
FORMATS = {"supervised": "chat", "dpo": "preference", "reinforcement": "reinforcement"}


def scan(method: str, *rows: object) -> tuple[list[Placed], Problems]:
    problems = Problems()
    stream = io.BytesIO(b"\n".join(json.dumps(row).encode() for row in rows))
    return list(scan_rows(stream, form=FORMS[method], max_line_bytes=5000, problems=problems, file_id="file-1")), problems


@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("method", FORMS)
@pytest.mark.parametrize("index", [0, 1])
def test_a_file_of_another_method_is_told_in_the_recorded_words(method: str, written: str, index: int) -> None:
    row = ROWS[written][index]
    if method == written:
        rows, problems = scan(method, row)
        assert (len(rows), str(problems)) == (1, "")
        return
    with pytest.raises(InvalidRows) as caught:
        scan(method, row)
    assert str(caught.value) == (
        f"Invalid file format. Input file file-1 is in the fine-tune-{FORMATS[written]} format, but the specified "
        f"fine-tuning job is not using '{written}' as the training method (provided method={method}). "
    )


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("supervised", "Unexpected file format, expected either prompt/completion pairs or chat messages."),
        ("dpo", "Unexpected file format, expected the keys input, preferred_output and non_preferred_output."),
        ("reinforcement", "Unexpected file format, expected chat messages and the columns that the grader asks for."),
    ],
)
def test_a_file_of_no_method(method: str, text: str) -> None:
    for row in ({}, {"text": "a"}, {"prompt": "a", "chosen": "b", "rejected": "c"}):
        with pytest.raises(InvalidRows) as caught:
            scan(method, row)
        assert str(caught.value) == text
    with pytest.raises(InvalidRows, match="holds prompt/completion pairs, the format of models that were retired"):
        scan(method, {"prompt": "a", "completion": "b"})


def test_a_mistake_in_the_first_row_is_no_other_format() -> None:
    mistakes: dict[str, list[dict[str, Any]]] = {
        "supervised": [{"messages": [USER]}, {"messages": [USER, ANSWER], "id": 7}, {"messages": 3, "id": 7}],
        "dpo": [{"input": {}}, {"preferred_output": 3}, {**ROWS["dpo"][0], "messages": [USER]}],
        "reinforcement": [{"messages": []}, {"messages": [USER, ANSWER], "id": 7}, {"messages": [3]}],
    }
    for method, rows in mistakes.items():
        for row in rows:
            found, problems = scan(method, row)
            assert not found
            assert problems.n_total == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
CALL = st.fixed_dictionaries(
    {}, optional={"id": st.just("1") | JSON, "type": st.just("function") | JSON, "function": st.just({"name": "f"}) | JSON}
)
MESSAGE = st.sampled_from([USER, ANSWER, OTHER]) | JSON | st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function"]) | JSON},
    optional={
        "content": st.text(max_size=2) | JSON,
        "weight": st.sampled_from([0, 1]) | JSON,
        "refusal": st.text(max_size=2) | JSON,
        "tool_calls": st.lists(CALL, max_size=2) | JSON,
        "function_call": st.just({"name": "f", "arguments": "{}"}) | JSON,
        "name": JSON,
    },
)  # fmt: skip
MESSAGES = st.lists(MESSAGE, max_size=3) | JSON
CHAT = {"messages": MESSAGES, "tools": st.just([]) | JSON, "parallel_tool_calls": st.booleans() | JSON}
PAIR = {
    "input": st.fixed_dictionaries({}, optional=CHAT) | JSON,
    "preferred_output": MESSAGES,
    "non_preferred_output": MESSAGES,
    "preferred_completion": MESSAGES,
    "non_preferred_completion": MESSAGES,
}
LINE = (
    st.fixed_dictionaries({}, optional=CHAT)
    | st.fixed_dictionaries({}, optional=PAIR)
    | st.fixed_dictionaries({}, optional={**CHAT, **PAIR, "functions": JSON, "answer": JSON})
    | st.dictionaries(st.text(max_size=3), JSON, max_size=3)
)


@pytest.mark.parametrize("method", FORMS)
@given(first=st.booleans(), content=LINE)
def test_any_object_is_a_row_or_a_named_problem(method: str, first: bool, content: dict[str, Any]) -> None:
    before = [] if first else ROWS[method][:1]
    try:
        rows, problems = scan(method, *before, content)
    except InvalidRows:
        assert first
        return
    assert len(rows) + problems.n_total == len(before) + 1
    assert all(text.startswith(f"Example {len(before) + 1}") for text in problems.texts)

import base64
import json

import pytest

from tunesmith.cli.stored import decoded, lines_of

CSV = b"step,train_loss\n" + b"1,0.5\n" * 50


@pytest.mark.parametrize("n", [1, 7, 64, 1000])
@pytest.mark.parametrize("sent", [CSV, base64.b64encode(CSV)], ids=["plain", "base64"])
def test_results_are_as_they_were_stored_in_either_form(sent: bytes, n: int) -> None:
    pieces = [sent[start : start + n] for start in range(0, len(sent), n)]
    assert b"".join(decoded(iter(pieces), "fine-tune-results")) == CSV


def test_what_is_no_result_is_left_alone() -> None:
    assert b"".join(decoded(iter([b"aGVsbG8="]), "fine-tune")) == b"aGVsbG8="


def test_rows_are_shown_as_conversations() -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "a\nb\x1b[31m"}]},
        "preferred_output": [{"role": "assistant", "content": "yes\u2028no"}],
        "grade": 3,
    }
    start = json.dumps(row, ensure_ascii=False).encode() + b"\n{"
    lines = list(lines_of({"filename": "a.jsonl", "purpose": "fine-tune"}, start, 3))
    assert [line for line in lines if line.startswith("  ")] == [
        "  input", "  \x1b[1muser\x1b[0m: a", "    b [31m",
        "  preferred_output", "  \x1b[1massistant\x1b[0m: yes no", "  grade = 3",
    ]  # fmt: skip
    assert lines[-1].startswith("\x1b[1mline 2\x1b[0m: not JSON")
    assert list(lines_of({"filename": "a.png", "purpose": "vision"}, b"\x89", 3)) == []
    assert list(lines_of({"filename": "m.csv", "purpose": "fine-tune-results"}, CSV, 1)) == ["step,train_loss", "1,0.5"]

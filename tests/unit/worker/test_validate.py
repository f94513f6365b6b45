"""The validation of a job's files, whole: real files in a real store, a real tokenizer, what is reported in the end."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.blobs.local import LocalBlobs
from tunesmith.data.render import Renderer

CONTEXT = 64


class Ticking:
    """A clock that goes on by a step at every look."""

    def __init__(self, step_s: float) -> None:
        self._step_s, self._at = step_s, 0.0

    def now(self) -> float:
        return self.monotonic()

    def monotonic(self) -> float:
        self._at += self._step_s
        return self._at


def row(user: str = "ab", assistant: str = "cd", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}], **more}


#: Each token is a byte: both tags, role, newline, content of a turn.
N_TOKENS = len("user\nab\n") + len("assistant\ncd\n") + 4


def test_good_files_are_counted_and_auto_resolved(job: Callable[..., Any]) -> None:
    told = job([row() for _ in range(12)], [row("ba"), row("ba")], hyperparameters={"batch_size": 5, "n_epochs": "auto"})
    assert told.error is None
    assert told.done == {
        "n_examples": 12,
        "n_validation_examples": 2,
        "tokens": 12 * N_TOKENS,
        "trained_tokens_per_epoch": 12 * N_TOKENS,
        "trainable_tokens": 12 * 3,
        "n_truncated": 0,
        "truncated_examples": [],
        "steps_per_epoch": 3,
        "total_steps": 24,
        "hyperparameters": {"n_epochs": 8, "batch_size": 5, "learning_rate_multiplier": 1.0},
        "warnings": [],
    }
    json.dumps(told.done)


def test_counts_are_those_of_the_examples_that_training_gets(job: Callable[..., Any], byte_base: Path) -> None:
    rows = [row("question " * n, "answer é " * (10 - n)) for n in range(1, 5)] + [row()] * 150
    told = job(rows)
    assert told.done is not None
    renderer = Renderer.load(byte_base)
    examples = [renderer.examples(item["messages"], max_tokens=CONTEXT) for item in rows]
    assert told.done["tokens"] == sum(len(example.tokens) for row in examples for example in row)
    assert told.done["trainable_tokens"] == sum(example.n_trained for row in examples for example in row)
    assert told.done["n_truncated"] == sum(example.truncated for row in examples for example in row)


def test_truncation_is_told_with_lines_and_the_way_out(job: Callable[..., Any]) -> None:
    long = row("a" * 20, "b" * 80)
    told = job([*[row()] * 10, b"", *[long] * 3, row("a", "b" * 200), *[long] * 4], [row("c" * 20, "b" * 80)])
    assert told.done is not None
    assert told.done["n_truncated"] == 8
    assert told.done["truncated_examples"] == [12, 13, 14, 15, 16]
    training, validation = told.done["warnings"]
    assert training == (
        "8 of 18 examples of the training file exceed the context of tiny (64 tokens) and lose their end: "
        f"line 12, 13, 14, 15, 16 and 3 more. The longest is line 15 with {N_TOKENS - 3 + 200:,} tokens. "
        "For longer rows, register a base with a longer context (tunesmith models add NAME SOURCE) and use it."
    )
    assert validation.startswith("1 of 1 examples of the validation file")


def test_rows_that_lose_all_that_is_trained_are_refused(job: Callable[..., Any]) -> None:
    told = job([*[row()] * 10, row("a" * 70), row()])
    assert told.error is not None
    assert told.error[:2] == ("invalid_training_file", "training_file")
    assert told.error[2] == (
        "The job failed due to an invalid training file. Invalid file format. Example 11: trains on nothing: the row has "
        f"{N_TOKENS - 2 + 70} tokens, the context of tiny has 64, and what is trained lies behind its end. For longer rows, "
        "register a base with a longer context (tunesmith models add NAME SOURCE) and use it."
    )


def test_a_base_that_holds_longer_rows_is_named(job: Callable[..., Any]) -> None:
    longer = {"small": 2048, "qwen": 32_768}
    told = job([*[row()] * 10, row("a", "b" * 80)], longer_bases=longer)
    assert told.done is not None
    assert told.done["warnings"][0].endswith(" For longer rows, use small (2,048 tokens) or qwen (32,768 tokens).")
    told = job([*[row()] * 10, row("a" * 70)], longer_bases=longer)
    assert told.error is not None
    assert told.error[2].endswith(" For longer rows, use small (2,048 tokens) or qwen (32,768 tokens).")


def test_rows_that_the_template_leaves_out_or_refuses(job: Callable[..., Any], byte_base: Path, tmp_path: Path) -> None:
    told = job([*[row()] * 10, row("refuse me"), row()])
    assert told.error is not None
    assert told.error[2].endswith("Example 11, message 1 the chat template of the base model refuses it: not that")
    silent = tmp_path / "silent"
    silent.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (silent / name).write_bytes((byte_base / name).read_bytes())
    source = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    (silent / "chat_template.jinja").write_text(source)
    told = job([row()] * 10, folder=silent)
    assert told.error is not None
    assert "Example 1: trains on nothing: the base's chat template leaves its assistant messages out" in told.error[2]


@pytest.mark.parametrize("n_rows", [0, 1, 9])
def test_fewer_than_ten_examples(job: Callable[..., Any], n_rows: int) -> None:
    told = job([row()] * n_rows)
    text = f"Training file has {n_rows} example(s), but must have at least 10 examples"
    assert told.error == ("invalid_n_examples", "training_file", text)


def test_ten_examples_are_enough_and_one_for_validation(job: Callable[..., Any]) -> None:
    assert job([row()] * 10, [row()]).done is not None
    text = "Validation file has 0 example(s), but must have at least 1 examples"
    assert job([row()] * 10, []).error == ("invalid_n_examples", "validation_file", text)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"hello", "Line 11 is not valid JSON"),
        (b'{"messages": "\xff"}', "Line 11 is not valid UTF-8: byte 0xff at position 15"),
        (b'{"messages": "' + b"x" * 2000 + b'"}', "Line 11 is longer than 2,000 bytes"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "Example 11, message 1 No match for discriminator 'role'"),
        ({"messages": [{"content": "a"}]}, "Example 11, message 1 Discriminator 'role' is missing in value"),
        (row(mood="good"), "Example 11: unknown keys: mood"),
        (
            {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]},
            "Example 11, message 1 weight must be 0 or 1",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "Example 11, message 1 content[0] has type"),
        ({"messages": [{"role": "user", "content": "a"}]}, "Example 11: trains on nothing"),
        (
            row(tools=[{"type": "function", "function": {"name": "f"}}]),
            "Example 11: the chat template of the base model has no",
        ),
    ],
)
def test_bad_input_is_named_by_place(job: Callable[..., Any], bad: Any, words: str) -> None:
    begin = "The job failed due to an invalid {} file. Invalid file format. "
    told = job([*[row()] * 10, bad])
    assert told.error is not None
    assert told.error[:2] == ("invalid_training_file", "training_file")
    assert told.error[2].startswith(begin.format("training") + words)
    told = job([row()] * 10, [*[row()] * 10, bad])
    assert told.error is not None
    assert told.error[:2] == ("invalid_validation_file", "validation_file")
    assert told.error[2].startswith(begin.format("validation") + words)


def test_many_errors_are_shown_in_part(job: Callable[..., Any]) -> None:
    told = job([row(), *[b"x"] * 700])
    assert told.error is not None
    assert told.error[2].count("is not valid JSON") == 5
    assert told.error[2].endswith("; and 695 more")


def test_another_methods_format_is_recorded_wording(job: Callable[..., Any]) -> None:
    told = job([{"input": {}, "preferred_output": [], "non_preferred_output": []}] * 10)
    assert told.error == (
        "invalid_training_file",
        "training_file",
        "The job failed due to an invalid training file. Invalid file format. Input file file-t is in the "
        "fine-tune-preference format, but the specified fine-tuning job is not using 'dpo' as the training method "
        "(provided method=supervised). ",
    )
    told = job([{"text": "a"}] * 10)
    assert told.error is not None
    assert told.error[2] == (
        "The job failed due to an invalid training file. "
        "Unexpected file format, expected either prompt/completion pairs or chat messages."
    )


def test_files_that_are_gone_before(job: Callable[..., Any]) -> None:
    text = "The job failed because the {} file was deleted"
    assert job(None).error == ("deleted_training_file", "training_file", text.format("training"))
    told = job([row()] * 10, has_validation=True)
    assert told.error == ("deleted_validation_file", "validation_file", text.format("validation"))


class Deleting:
    """A store whose training file is deleted once it was opened so many times."""

    def __init__(self, blobs: LocalBlobs, key: str, n_opens: int) -> None:
        self._blobs, self._key, self._n_opens = blobs, key, n_opens

    def open(self, key: str) -> Any:
        stream = self._blobs.open(key)
        self._n_opens -= 1
        if self._n_opens == 0:
            self._blobs.delete(self._key)
        return stream


@pytest.mark.parametrize(("kind", "n_opens"), [("training", 1), ("training", 2), ("training", 3), ("validation", 3)])
def test_a_file_deleted_while_it_is_validated(job: Callable[..., Any], kind: str, n_opens: int) -> None:
    key = f"files/file-{kind[0]}"
    told = job([row()] * 10, [row()] * 10, store=lambda blobs: Deleting(blobs, key, n_opens))
    text = f"The job failed because the {kind} file was deleted"
    assert told.error == (f"deleted_{kind}_file", f"{kind}_file", text)


def test_a_deletion_is_seen_before_the_end(job: Callable[..., Any]) -> None:
    told = job([row()] * 640, clock=Ticking(2.0), store=lambda blobs: Deleting(blobs, "files/file-t", 3))
    assert told.error is not None
    assert told.error[0] == "deleted_training_file"


def test_long_validations_tell_their_progress(job: Callable[..., Any]) -> None:
    told = job([row()] * 640, clock=Ticking(4.0))
    assert told.done is not None
    assert len(told.messages) >= 2
    assert told.messages[0].startswith("Validating training file: ")
    assert told.messages[-1].endswith("examples read (100%)")
    assert job([row()] * 640, clock=Ticking(0.001)).messages == []


def test_a_base_that_vanished(job: Callable[..., Any], tmp_path: Path) -> None:
    told = job([row()] * 10, folder=tmp_path / "gone")
    assert told.error is not None
    assert told.error[:2] == ("base_not_found", "model")
    assert "no chat template" in told.error[2] or "cannot be read" in told.error[2]


def test_no_deep_learning_library_is_loaded() -> None:
    heavy = "torch", "transformers", "sqlalchemy", "fastapi"
    code = f"import sys, tunesmith.worker.validate; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_rows_of_the_validation_file_that_are_trained_on(job: Callable[..., Any]) -> None:
    rows = [row(f"u{n}") for n in range(20)]
    told = job(rows, [row("v"), b"", *rows[:7], row("u1", "other")])
    assert told.done["warnings"] == [
        "7 of 9 examples of the validation file are in the training file too: line 3, 4, 5, 6, 7 and 2 more. What is "
        "measured on them does not tell how the model does on others."
    ]
    assert job(rows, [row("v"), row("v")]).done["warnings"] == []

"""The validation of dpo's and reinforcement's files: what is counted, what does not fit, what is only worth a warning."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.data.pairs import Pair
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.methods.dpo import Dpo
from tunesmith.methods.reinforcement import Reinforcement

BEGIN = "The job failed due to an invalid training file. Invalid file format. "
LONGER = "For longer rows, register a base with a longer context (tunesmith models add NAME SOURCE) and use it."
#: Each token is a byte: both tags, role, newline, content of a turn.
N_ASKED = len("user\nab\n") + 2
N_OPENED = len("assistant\n") + 1


def said(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def pair(preferred: str = "cd", other: str = "ef", asked: str = "ab", suffix: str = "output") -> dict[str, Any]:
    return {
        "input": {"messages": [said("user", asked)]},
        f"preferred_{suffix}": [said("assistant", preferred)],
        f"non_preferred_{suffix}": [said("assistant", other)],
    }


def prompt(asked: str = "ab", **item: Any) -> dict[str, Any]:
    return {"messages": [said("user", asked)], **item}


@pytest.fixture
def dpo(job: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *files, **knobs: job(*files, method="dpo", **knobs)


@pytest.fixture
def reinforcement(job: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *files, **knobs: job(*files, method="reinforcement", **knobs)


def test_pairs_are_counted_as_both_branches(dpo: Callable[..., Any], byte_base: Path) -> None:
    told = dpo([pair(), *[pair("c" * n, "d") for n in range(1, 12)]], [pair(asked="v")], hyperparameters={"batch_size": 4})
    renderer = Renderer.load(byte_base)
    rows = [Pair(1, 1, [said("user", "ab")], None, None, said("assistant", left), said("assistant", right))
            for left, right in [("cd", "ef"), *[("c" * n, "d") for n in range(1, 12)]]]  # fmt: skip
    examples = [example for row in rows for group in Dpo().groups(row, renderer, max_tokens=64) for example in group]
    assert len(examples) == 24
    n_tokens = sum(len(example.tokens) for example in examples)
    assert told.done == {
        "n_examples": 12,
        "n_validation_examples": 1,
        "tokens": n_tokens,
        "trained_tokens_per_epoch": n_tokens,
        "trainable_tokens": sum(example.n_trained for example in examples),
        "n_truncated": 0,
        "truncated_examples": [],
        "steps_per_epoch": 3,
        "total_steps": 24,
        "hyperparameters": {"n_epochs": 8, "batch_size": 4, "learning_rate_multiplier": 1.0, "beta": 0.1},
        "warnings": [],
    }
    json.dumps(told.done)


def test_an_answer_that_lies_behind_the_context_is_refused(dpo: Callable[..., Any]) -> None:
    told = dpo([*[pair()] * 10, b"", pair(asked="a" * 60)])
    n_tokens = N_ASKED - 2 + 60 + N_OPENED + 2 + 2
    assert told.error == (
        "invalid_training_file",
        "training_file",
        f"{BEGIN}Example 11 (line 12): preferred_output trains on nothing: the input and this answer have {n_tokens} "
        f"tokens, the context of tiny has 64, and what is trained lies behind its end. {LONGER}",
    )


def test_answers_that_differ_behind_the_context_are_refused(dpo: Callable[..., Any]) -> None:
    told = dpo([*[pair()] * 10, pair("c" * 90 + "d", "c" * 90)], longer_bases={"long": 128})
    n_tokens = N_ASKED + N_OPENED + 2 + 90
    assert told.error[2] == (
        f"{BEGIN}Example 11: with the input both answers have {n_tokens + 1} and {n_tokens} tokens, the context of tiny has "
        "64, and they differ behind its end alone. For longer rows, use long (128 tokens)."
    )


def test_a_pair_that_loses_its_end_is_worth_a_warning(dpo: Callable[..., Any]) -> None:
    told = dpo([*[pair()] * 10, pair("c" * 90, "d"), pair("d", "c" * 90), pair("c" * 90, "d" * 90)])
    assert told.done["n_truncated"] == 3
    assert told.done["warnings"] == [
        "3 of 13 examples of the training file exceed the context of tiny (64 tokens) and lose their end: line 11, 12, 13. "
        f"The longest is line 11 with {N_ASKED + N_OPENED + 2 + 90} tokens. {LONGER}"
    ]


def copy(base: Path, folder: Path, template: str) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((base / name).read_bytes())
    (folder / "chat_template.jinja").write_text(template)
    return folder


def test_answers_that_a_template_makes_the_same_or_leaves_out(
    dpo: Callable[..., Any], byte_base: Path, tmp_path: Path
) -> None:
    source = (byte_base / "chat_template.jinja").read_text()
    trims = copy(
        byte_base, tmp_path / "trims", source.replace("generation %}{{ m.content }}", "generation %}{{ m.content | trim }}")
    )
    told = dpo([*[pair()] * 10, pair("b", "b ")], folder=trims)
    assert told.error[2] == (
        f"{BEGIN}Example 11: both answers are the same once the base's chat template has rendered them: there is nothing to "
        "prefer"
    )
    silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    told = dpo([pair()] * 10, folder=copy(byte_base, tmp_path / "silent", silent))
    assert "Example 1: preferred_output trains on nothing: the base's chat template leaves it out" in told.error[2]


def test_what_a_template_refuses_is_named_by_its_place(dpo: Callable[..., Any], byte_base: Path, tmp_path: Path) -> None:
    told = dpo([*[pair()] * 10, pair(asked="refuse me")])
    assert told.error[2] == f"{BEGIN}Example 11, message 1 the chat template of the base model refuses it: not that"
    source = "{% for m in messages %}{% if m.content == 'no' %}{{ raise_exception('not that') }}{% endif %}" + (
        (byte_base / "chat_template.jinja").read_text().removeprefix("{% for m in messages %}")
    )
    told = dpo([*[pair()] * 10, pair("yes", "no")], folder=copy(byte_base, tmp_path / "picky", source))
    assert told.error[2] == (
        f"{BEGIN}Example 11: non_preferred_output: the chat template of the base model refuses it: not that"
    )


def test_older_names_are_one_warning_for_the_file(dpo: Callable[..., Any]) -> None:
    older = [pair(asked=f"u{n}", suffix="completion") for n in range(10)]
    told = dpo([pair(), *older], [pair(asked="v", suffix="completion")])
    read = (
        "preferred_completion as preferred_output and non_preferred_completion as non_preferred_output is how they are read."
    )
    assert told.done["warnings"] == [
        f"10 of 11 examples of the training file have older names (from line 2 on): {read}",
        f"1 of 1 examples of the validation file have older names (line 1): {read}",
    ]


def test_pairs_in_both_files(dpo: Callable[..., Any]) -> None:
    told = dpo([pair(asked=f"u{n}") for n in range(10)], [pair(asked="u3"), pair("x", "y", asked="u3")])
    (warning,) = told.done["warnings"]
    assert warning.startswith("1 of 2 examples of the validation file are in the training file too: line 1.")


def test_prompts_are_counted_and_their_knobs_resolved(reinforcement: Callable[..., Any], byte_base: Path) -> None:
    told = reinforcement([prompt(f"u{n}", answer=n) for n in range(20)], [prompt("v", answer=1)])
    renderer = Renderer.load(byte_base)
    rows = [PromptRow(1, 1, [said("user", f"u{n}")]) for n in range(20)]
    n_tokens = sum(len(Reinforcement().prompt(row, renderer, None)) for row in rows)
    assert told.done == {
        "n_examples": 20,
        "n_validation_examples": 1,
        "tokens": n_tokens,
        "trained_tokens_per_epoch": n_tokens,
        "trainable_tokens": 0,
        "n_truncated": 0,
        "truncated_examples": [],
        "steps_per_epoch": 3,
        "total_steps": 30,
        "hyperparameters": {
            "n_epochs": 10,
            "batch_size": 8,
            "learning_rate_multiplier": 1.0,
            "compute_multiplier": 1.0,
            "eval_interval": 3,
            "eval_samples": 1,
            "reasoning_effort": "default",
        },
        "warnings": [],
    }


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_a_prompt_must_leave_room_for_an_answer(reinforcement: Callable[..., Any], more: int, fits: bool) -> None:
    asked = "a" * (64 - 16 - (N_ASKED - 2) - N_OPENED + more)
    told = reinforcement([*[prompt()] * 10, prompt(asked)], [prompt("v")])
    if fits:
        assert told.done["n_truncated"] == 0
        return
    assert told.error[2] == (
        f"{BEGIN}Example 11: the prompt has 49 tokens, the context of tiny has 64, and an answer needs room for at least "
        f"16. {LONGER}"
    )


def test_efforts_that_switch_thinking_off_count_with_what_the_template_writes_then(
    reinforcement: Callable[..., Any], byte_base: Path, tmp_path: Path
) -> None:
    source = (byte_base / "chat_template.jinja").read_text()
    source += "{% if add_generation_prompt and enable_thinking is defined and not enable_thinking %}0123456789{% endif %}"
    folder = copy(byte_base, tmp_path / "thinks", source)
    files = [prompt()] * 10, [prompt("v")]
    counts = {
        effort: reinforcement(*files, folder=folder, hyperparameters={"reasoning_effort": effort}).done["tokens"]
        for effort in ("default", "high", "none")
    }
    assert counts["high"] == counts["default"]
    assert counts["none"] == counts["default"] + 10 * 10


def test_reinforcement_needs_a_validation_file(reinforcement: Callable[..., Any]) -> None:
    assert reinforcement([prompt()] * 10).error == (
        "invalid_validation_file",
        "validation_file",
        "The job failed because it has no validation file: reinforcement needs one beside the training file",
    )


def test_files_of_prompts_have_few_and_many_rows(reinforcement: Callable[..., Any]) -> None:
    assert reinforcement([prompt()] * 9, [prompt("v")]).error == (
        "invalid_n_examples", "training_file", "Training file has 9 example(s), but must have at least 10 examples",
    )  # fmt: skip
    assert reinforcement([prompt()] * 10, []).error == (
        "invalid_n_examples", "validation_file", "Validation file has 0 example(s), but must have at least 1 examples",
    )  # fmt: skip
    assert reinforcement([prompt()] * 10, [prompt("v")] * 1000).done["n_validation_examples"] == 1000
    assert reinforcement([prompt()] * 10, [prompt("v")] * 1001).error == (
        "invalid_n_examples",
        "validation_file",
        "Validation file has more than 1,000 examples, the most that a reinforcement job takes",
    )


@pytest.mark.slow
def test_training_files_of_prompts_end_at_fifty_thousand(reinforcement: Callable[..., Any]) -> None:
    assert reinforcement([prompt()] * 50_000, [prompt("v")]).done["n_examples"] == 50_000
    assert reinforcement([prompt()] * 50_001, [prompt("v")]).error == (
        "invalid_n_examples",
        "training_file",
        "Training file has more than 50,000 examples, the most that a reinforcement job takes",
    )


def test_prompts_in_both_files_whatever_else_is_in_their_rows(reinforcement: Callable[..., Any]) -> None:
    told = reinforcement([prompt(f"u{n}", answer=n) for n in range(10)], [prompt("v"), prompt("u3", answer=9)])
    (warning,) = told.done["warnings"]
    assert warning.startswith("1 of 2 examples of the validation file are in the training file too: line 2.")


def test_rows_of_another_method(dpo: Callable[..., Any], reinforcement: Callable[..., Any]) -> None:
    chat = {"messages": [said("user", "a"), said("assistant", "b")]}
    words = "Input file file-t is in the fine-tune-{} format, but the specified fine-tuning job is not using '{}'"
    for run, row, names in (
        (dpo, chat, ("chat", "supervised")),
        (dpo, prompt(answer=1), ("reinforcement", "reinforcement")),
        (reinforcement, chat, ("chat", "supervised")),
        (reinforcement, pair(), ("preference", "dpo")),
    ):
        told = run([row] * 10, [row])
        assert told.error[:2] == ("invalid_training_file", "training_file")
        assert words.format(*names) in told.error[2]

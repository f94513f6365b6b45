"""Reinforcement through the one loop: a tiny base that samples, real graders, and every way in which a step can go."""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher

from tunesmith.data.grammar import answer_grammar, grammar_of
from tunesmith.data.prompts import PromptRow
from tunesmith.data.render import Renderer
from tunesmith.engine import rollouts
from tunesmith.engine.rollouts import GraderFailing
from tunesmith.graders.base import Grade, Sample
from tunesmith.lm import adapter_file
from tunesmith.lm.load import load
from tunesmith.lm.lora import LoraModel

LIKENESS = {
    "type": "text_similarity", "name": "likeness", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "fuzzy_match",
}  # fmt: skip
#: Nothing that the base says has this in it.
NEVER = {
    "type": "string_check", "name": "never", "operation": "like", "input": "{{ sample.output_text }}",
    "reference": "nobody ever says this",
}  # fmt: skip
#: Asks for a variable that rows without an answer lack.
STRICT = {**LIKENESS, "name": "strict", "input": "{{ sample.output_text }}", "reference": "{{ item.wanted }}"}
PARSED = {**LIKENESS, "name": "parsed", "input": "{{ sample.output_json.colour }}"}


def row(line: int, **item: Any) -> PromptRow:
    asked = [{"role": "user", "content": f"number {line}"}]
    return PromptRow(line, line, asked, None, None, item or {"answer": "aeiou"})


def test_a_run_tells_every_step_and_evaluates_before_the_first_and_at_intervals(prompts_plan: Any, rig: Any) -> None:
    news = rig.told()
    outcome = rig.go(prompts_plan(), news)
    assert list(news.steps) == [0, 1, 2, 3, 4]
    assert {step for step, values in news.steps.items() if "valid_reward_mean" in values} == {0, 2, 4}
    assert "train_mean_reward" not in news.steps[0]
    first = news.steps[1]
    assert {"train_mean_reward", "train_loss", "sampler_logp_gap", "completion_tokens_mean"} <= set(first)
    assert first["sampler_logp_gap"] < 1e-3
    assert [step for step, *_ in news.checkpoints] == [2]
    assert outcome.finished
    assert outcome.checkpoint.metrics == news.steps[4]
    records = [rig.records(step, "jobs/j/attempts/1") for step in range(5)]
    assert [len(found) for found in records] == [4, 8, 12, 8, 12]
    trained = [record for found in records for record in found if record["split"] == "train"]
    tokens = [record["prompt_tokens"] + record["completion_tokens"] for record in trained]
    assert outcome.trained_tokens == sum(tokens)
    assert {(record["row"], record["sample"]) for record in records[1] if record["split"] == "train"} <= {
        (number, sample) for number in range(1, 5) for sample in range(4)
    }
    groups = [[r["advantage"] for r in records[1] if r["row"] == n] for n in {r["row"] for r in records[1]}]
    assert all(abs(sum(group)) < 1e-6 for group in groups)


class Patient:
    """A control that lets no further pass be made until the first grade is there; never asks for a pause."""

    def __init__(self, news: Any, rig: Any) -> None:
        self._news, self._rig = news, rig
        self.graded = threading.Event()
        self.n_begun: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._news, name)

    def pause_asked(self) -> bool:
        if self._rig.samples and not self.n_begun:
            assert self.graded.wait(60)
            self.n_begun.append(len(self._rig.samples))
        return False


def test_samples_are_graded_while_others_are_still_being_drawn(prompts_plan: Any, rig: Any) -> None:
    # one prompt's answer ends earlier than the others', because the context does
    rows = [row(n) for n in range(1, 4)]
    rows.append(replace(rows[0], line=4, messages=[{"role": "user", "content": "x" * 60}]))
    control = Patient(rig.told(), rig)

    def graded(sample: Sample, grader: Any) -> Grade:
        try:
            return rig.grade(sample, grader)
        finally:
            control.graded.set()

    outcome = rig.go(
        prompts_plan(n_epochs=1, batch_size=4), control, rows=rows, valid=rows[3:], grading=graded, max_tokens=90
    )
    assert outcome.finished
    assert control.n_begun[0] < 2 + 16 + 2


def test_a_constant_reward_is_warned_of_and_the_run_goes_on(prompts_plan: Any, rig: Any) -> None:
    news = rig.told()
    outcome = rig.go(prompts_plan(), news, grader=NEVER)
    assert outcome.finished
    assert list(news.steps) == [0, 1, 2, 3, 4]
    assert all("train_loss" not in values for values in news.steps.values())
    assert news.steps[1]["train_mean_reward"] == 0.0
    assert all("all samples got the same reward" in text for text in news.messages)
    assert news.messages
    assert set(news.keys) == {"no-gradient"}, "the job shows it once"
    fresh = LoraModel(load(rig.folder).model).fresh(seed=1)
    unchanged = adapter_file.to_files(fresh, base_name="tiny")[adapter_file.WEIGHTS]
    assert hashlib.sha256(unchanged).hexdigest() == outcome.checkpoint.sha256


def test_a_sampler_that_computes_otherwise_than_training_is_warned_of(
    prompts_plan: Any, rig: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollouts, "WIDEST_GAP", -1.0)
    news = rig.told()
    rig.go(prompts_plan(), news)
    assert "log-probabilities of sampling and of training differ by 0.000 a token" in news.messages[0]
    assert set(news.keys) == {"sampler-gap"}


def test_samples_without_a_grade_are_left_out_and_counted(prompts_plan: Any, rig: Any) -> None:
    rows = [row(n, answer="aeiou", wanted="aeiou") for n in range(1, 5)] + [row(5)]
    news = rig.told()
    outcome = rig.go(prompts_plan(n_epochs=1, batch_size=5), news, grader=STRICT, rows=rows, valid=rows[:2])
    assert outcome.finished
    records = [record for record in rig.records(1, "jobs/j/attempts/1") if record["split"] == "train"]
    failed = [record for record in records if record["row"] == 5]
    assert len(failed) == 4
    for record in failed:
        assert (record["reward"], record["advantage"]) == (None, None)
        assert record["error"].startswith("invalid_variable_error: ")
    assert all(record["reward"] is not None for record in records if record["row"] != 5)
    (errors,) = news.steps[1]["errors"]["graders"]
    assert errors["train_invalid_variable_error_count"] == 4
    assert errors["train_invalid_variable_error_mean"] == pytest.approx(0.2)
    (told,) = news.messages
    assert told.startswith("The grader failed for 4 of the 20 samples of step 1. They are left out")
    assert "wanted" in told
    assert set(news.keys) == {"grader-errors"}
    counted = [record for record in records if record["reward"] is not None]
    assert outcome.trained_tokens == sum(record["prompt_tokens"] + record["completion_tokens"] for record in counted)


@pytest.mark.parametrize("where", ["train", "valid"])
def test_a_grader_that_fails_too_often_ends_the_run_with_its_reason(prompts_plan: Any, rig: Any, where: str) -> None:
    good, bad = [row(n, wanted="aeiou") for n in range(1, 5)], [row(n) for n in range(5, 7)]
    files = {"rows": [*good, *bad], "valid": good[:2]} if where == "train" else {"rows": good, "valid": [good[0], bad[0]]}
    step, n = (1, "8 of the 24") if where == "train" else (0, "2 of the 4")
    with pytest.raises(GraderFailing, match=rf"{n} samples of step {step}, more than 20%: invalid_variable_error: .*wanted"):
        rig.go(prompts_plan(n_epochs=1, batch_size=6), rig.told(), grader=STRICT, **files)


def test_an_answer_that_is_not_the_json_it_was_to_be_is_worth_nought(prompts_plan: Any, rig: Any) -> None:
    news = rig.told()
    outcome = rig.go(prompts_plan(n_epochs=1), news, grader=PARSED, as_json=True)
    assert outcome.finished
    assert news.steps[1]["train_mean_reward"] == 0.0
    assert news.steps[0]["full_valid_mean_parse_error"] == 1.0
    records = rig.records(1, "jobs/j/attempts/1")
    assert {record["reward"] for record in records} == {0.0}
    assert all(record["error"].startswith("sample_parse_error: ") for record in records)


def test_a_rate_beyond_reason_is_told_with_step_and_examples_and_the_last_checkpoint_stands(
    prompts_plan: Any, rig: Any
) -> None:
    news = rig.told()
    run = prompts_plan(learning_rate_multiplier=1e30)
    with pytest.raises(FloatingPointError, match=r"not finite any more, .* at step 1; .* example \d, \d of"):
        rig.go(run, news, eval_interval=1)
    assert list(news.steps) == [0]
    assert news.checkpoints == [], "a broken adapter is not kept"


def test_an_answer_is_cut_where_its_tokens_run_out(prompts_plan: Any, rig: Any) -> None:
    news = rig.told()
    rig.go(prompts_plan(n_epochs=1), news, max_tokens=3)
    records = rig.records(1, "jobs/j/attempts/1")
    assert {record["completion_tokens"] for record in records} <= {1, 2, 3}
    cut = [record for record in records if record["finish_reason"] == "length"]
    assert news.steps[1]["mean_unresponsive_rewards"] == len(cut) / len(records) > 0
    assert all(sample.sample["choices"][0]["finish_reason"] in ("length", "stop") for sample in rig.samples)


def test_answers_keep_to_the_form_that_is_asked_for(prompts_plan: Any, rig: Any) -> None:
    schema = {
        "type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"],
        "additionalProperties": False,
    }  # fmt: skip
    news = rig.told()
    rows = [row(n, answer="red") for n in range(1, 5)]
    grader = {**PARSED, "reference": "{{ item.answer }}"}
    outcome = rig.go(
        prompts_plan(n_epochs=1),
        news,
        grader=grader,
        rows=rows,
        valid=rows,
        grammar=grammar_of(schema),
        as_json=True,
        max_tokens=40,
    )
    assert outcome.finished
    for step in (1, 2):
        for record in rig.records(step, "jobs/j/attempts/1"):
            assert json.loads(record["output_text"])["colour"] in ("red", "green")
            assert record["finish_reason"] == "stop"
    assert news.steps[2]["full_valid_mean_parse_error"] == 0.0
    assert {sample.sample["output_json"]["colour"] for sample in rig.samples} == {"red", "green"}
    assert news.steps[1]["sampler_logp_gap"] < 1e-3


def _retemplate(rig: Any, tmp_path: Path, change: Callable[[str], str]) -> None:
    """Let the rig's base have another chat template."""
    rig.folder = shutil.copytree(rig.folder, tmp_path / "other")
    file = rig.folder / "chat_template.jinja"
    file.write_text(change(file.read_text()))
    rig.renderer = Renderer.load(rig.folder)


def test_calls_in_answers_reach_the_grader(prompts_plan: Any, rig: Any, tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    tools = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}{% for message"
    _retemplate(rig, tmp_path, lambda template: template.replace("{% for message", tools, 1))
    rows = [replace(row(n), tools=[tool]) for n in range(1, 5)]
    grader = {
        "type": "string_check", "name": "call", "operation": "like", "reference": ': "a"',
        "input": "{{ sample.output_tools[0].function.arguments }}",
    }  # fmt: skip
    spoken = r'start: "<tool_call>{\"name\": \"look\", \"arguments\": {\"at\": \"" /[ab]/ "\"}}</tool_call>"'
    news = rig.told()
    outcome = rig.go(
        prompts_plan(n_epochs=1), news, grader=grader, rows=rows, valid=rows, grammar=LLMatcher.grammar_from_lark(spoken),
        max_tokens=80,
    )  # fmt: skip
    assert outcome.finished
    records = rig.records(1, "jobs/j/attempts/1")
    for record in records:
        (call,) = record["output_tools"]
        assert call["function"]["name"] == "look"
        assert json.loads(call["function"]["arguments"])["at"] in ("a", "b")
        assert record["reward"] == float(json.loads(call["function"]["arguments"])["at"] == "a")
        assert record["finish_reason"] == "tool_calls"
    assert 0 < news.steps[1]["train_mean_reward"] < 1
    silent = rig.told()
    rig.go(prompts_plan(n_epochs=1, output_key="jobs/j/2"), silent, grader=grader, rows=rows, valid=rows)
    assert silent.steps[1]["train_mean_reward"] == 0.0, "an answer without the call is worth nought"
    assert silent.steps[1]["errors"]["graders"][0]["train_invalid_variable_error_mean"] == 1.0


def test_rows_with_tools_and_a_form_have_calls_or_the_form(prompts_plan: Any, rig: Any, tmp_path: Path) -> None:
    form = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "look", "parameters": form, "strict": True}}
    rows = [replace(row(n, answer="x"), tools=[tool], parallel_tool_calls=False) for n in range(1, 5)]

    def grammar(row: PromptRow, prompt: list[int]) -> str | None:
        return answer_grammar(rig.renderer, row.tools, one_call=True, schema=form, thought=rig.renderer.thought(prompt))

    tools = "{% for tool in tools or [] %}{{ tool.function.name }}{% endfor %}{% for message"
    _retemplate(rig, tmp_path, lambda template: template.replace("{% for message", tools, 1))
    rig.go(prompts_plan(n_epochs=1), rig.told(), rows=rows, valid=rows, grammar=grammar, as_json=True, max_tokens=90)
    for record in rig.records(1, "jobs/j/attempts/1"):
        calls = record["output_tools"]
        said = calls[0]["function"]["arguments"] if calls else record["output_text"]
        assert (json.loads(said).keys(), len(calls) < 2, bool(calls) and bool(record["output_text"])) == (
            {"ok"},
            True,
            False,
        )


@pytest.mark.parametrize("begun", [False, True])
def test_what_was_thought_is_told_from_what_was_said(prompts_plan: Any, rig: Any, tmp_path: Path, begun: bool) -> None:
    mark = "<think>\n" if begun else ""
    switch = f"{{% if enable_thinking is not defined or enable_thinking %}}{mark}{{% endif %}}"
    end = "assistant\n{% endif %}"
    _retemplate(rig, tmp_path, lambda template: template.replace(end, end.replace("{%", f"{switch}{{%")))
    assert rig.renderer.thinks()
    spoken = r'start: /[ab]{2}/ "</think>\n\n" /[0-9]/' if begun else r'start: "<think>" /[ab]{2}/ "</think>\n\n" /[0-9]/'
    news, rows = rig.told(), [row(n, answer="7") for n in range(1, 5)]
    grammar = LLMatcher.grammar_from_lark(spoken)
    rig.go(prompts_plan(n_epochs=1), news, rows=rows, valid=rows, grammar=grammar, max_tokens=30)
    n_thought = 2 + len("</think>") + (0 if begun else len("<think>"))
    for record in rig.records(1, "jobs/j/attempts/1"):
        assert record["output_text"] in tuple("0123456789")
    assert news.steps[1]["reasoning_tokens_mean"] == n_thought
    assert news.steps[0]["valid_reasoning_tokens_mean"] == n_thought
    unfinished = rig.told()
    rig.go(prompts_plan(n_epochs=1, output_key="jobs/j/2"), unfinished, rows=rows, valid=rows, grammar=grammar, max_tokens=9)
    assert {record["output_text"] for record in rig.records(1, "jobs/j/2")} == {""}, "it never said anything"
    assert unfinished.steps[1]["reasoning_tokens_mean"] == 9

"""The result file: the known columns of each method, one row a step, empty cells for what was not measured."""

import csv
from typing import Any

from tunesmith.domain.results import results_csv


def lines(method: str, rows: list[tuple[int, dict[str, Any]]]) -> list[str]:
    return b"".join(results_csv(method, rows)).decode().splitlines()


def test_the_header_and_the_cells() -> None:
    rows = [
        (1, {"train_loss": 0.5, "train_mean_token_accuracy": 0.25}),
        (2, {"train_loss": None, "valid_loss": 0.1234567, "valid_mean_token_accuracy": 1.0, "full_valid_loss": 2.0}),
    ]
    assert lines("supervised", rows) == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,train_mean_token_accuracy,full_valid_loss,"
        "full_valid_mean_token_accuracy",
        "1,0.50000,0.25000,,,0.25000,,",
        "2,,,0.12346,1.00000,,2.00000,",
    ]
    assert len(lines("supervised", [])) == 1


def test_preferences_have_margin_and_accuracy_beside_the_losses() -> None:
    rows = [
        (1, {"train_loss": 0.6931, "train_reward_margin": 0.0, "train_reward_accuracy": 0.5, "train_nll_loss": 2.0}),
        (2, {"train_loss": 0.5, "valid_loss": 0.6, "valid_reward_margin": -0.25, "full_valid_reward_accuracy": 1.0}),
    ]
    assert lines("dpo", rows) == [
        "step,train_loss,train_reward_margin,train_reward_accuracy,valid_loss,valid_reward_margin,valid_reward_accuracy,"
        "full_valid_loss,full_valid_reward_margin,full_valid_reward_accuracy,train_nll_loss",
        "1,0.69310,0.00000,0.50000,,,,,,,2.00000",
        "2,0.50000,,,0.60000,-0.25000,,,,1.00000,",
    ]


def test_rewards_have_columns_for_every_grader_that_any_step_tells_of() -> None:
    first = {"step": 0, "full_valid_mean_reward": 0.25, "valid_reward_mean": 0.25}
    graded = {
        "train_mean_reward": 0.5,
        "mean_unresponsive_rewards": 0.0,
        "timing": {"step": {"sampling": 1.5, "training": 0.5, "full_iteration": 2}, "graders": []},
        "scores": {"train_reward_mean": 0.5, "graders": [{"name": "a", "type": "python", "train_reward_mean": 0.5}]},
        "errors": {
            "graders": [{"name": "a", "type": "python", "train_other_error_mean": 0.125, "train_other_error_count": 1}]
        },
    }
    later = {
        "train_mean_reward": 1.0,
        "scores": {"graders": [{"name": "a", "type": "python", "train_reward_mean": 1.0, "valid_reward_mean": 0.75}]},
        "sampler_logp_gap": 0.001,
    }
    table = list(csv.DictReader(lines("reinforcement", [(0, first), (1, graded), (2, later)])))
    assert list(table[0]) == [
        "step", "train_mean_reward", "full_valid_mean_reward", "completion_tokens_mean", "reasoning_tokens_mean",
        "mean_unresponsive_rewards", "sampling_duration", "training_duration", "eval_duration", "total_duration",
        "scores/graders/python/a/train_reward_mean", "errors/graders/python/a/errors/train_other_error_mean",
        "scores/graders/python/a/valid_reward_mean", "full_valid_mean_parse_error", "valid_reward_mean",
        "valid_completion_tokens_mean", "valid_reasoning_tokens_mean", "train_loss", "sampler_logp_gap",
    ]  # fmt: skip
    told = [{name: cell for name, cell in row.items() if cell} for row in table]
    assert told == [
        {"step": "0", "full_valid_mean_reward": "0.25000", "valid_reward_mean": "0.25000"},
        {
            "step": "1", "train_mean_reward": "0.50000", "mean_unresponsive_rewards": "0.00000",
            "sampling_duration": "1.50000", "training_duration": "0.50000", "total_duration": "2",
            "scores/graders/python/a/train_reward_mean": "0.50000",
            "errors/graders/python/a/errors/train_other_error_mean": "0.12500",
        },
        {
            "step": "2", "train_mean_reward": "1.00000", "scores/graders/python/a/train_reward_mean": "1.00000",
            "scores/graders/python/a/valid_reward_mean": "0.75000", "sampler_logp_gap": "0.00100",
        },
    ]  # fmt: skip


def test_a_graders_name_may_hold_anything() -> None:
    grader = {"name": 'a, "b"\n{key}', "type": "string_check", "valid_reward_mean": 1.0}
    table = b"".join(results_csv("reinforcement", [(1, {"scores": {"graders": [grader]}})])).decode()
    (row,) = csv.DictReader(table.splitlines(keepends=True))
    assert row['scores/graders/string_check/a, "b"\n{key}/valid_reward_mean'] == "1.00000"


def test_metrics_of_another_shape_are_empty_cells() -> None:
    for odd in ({"timing": None}, {"timing": {"step": 3}}, {"scores": []}, {"errors": {"graders": None}}):
        assert lines("reinforcement", [(1, odd)])[1].strip(",") == "1"

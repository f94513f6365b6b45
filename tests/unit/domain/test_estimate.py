"""Estimates: from runs that ended, from sizes, and the constants that they share with the engine."""

import pytest

from tunesmith.domain import estimate
from tunesmith.domain.estimate import Pace, Work, by_jobs, by_rule, memory_bytes

#: 100 steps of a second each, ten tokens a step; two seconds before the first one ends, three after the last.
PACE = Pace(100, 1000, 1000, started_at=0.0, first_step_at=2.0, last_step_at=101.0, finished_at=104.0)


def test_a_run_tells_the_time_of_the_next() -> None:
    told = by_jobs([PACE], Work("supervised", 500))
    assert told is not None
    assert (told.source, told.n_jobs, told.trained_tokens) == ("jobs", 1, 500)
    assert told.seconds == pytest.approx(4 + 50)
    assert (told.low, told.high) == (pytest.approx(54 * 0.75), pytest.approx(54 * 1.25))


def test_the_span_goes_from_the_fastest_to_the_slowest() -> None:
    slow = Pace(100, 1000, 1000, started_at=0.0, first_step_at=4.0, last_step_at=202.0, finished_at=204.0)
    told = by_jobs([PACE, slow], Work("supervised", 1000))
    assert told is not None
    assert (told.low, told.high) == (pytest.approx(104 * 0.75), pytest.approx(204 * 1.25))
    assert told.low < told.seconds < told.high


def test_samples_tell_the_tokens_of_reinforcement() -> None:
    told = by_jobs([Pace(10, 80, 4000, 0.0, 1.0, 10.0, 11.0)], Work("reinforcement", 160, (10, 512)))
    assert told is not None
    assert told.trained_tokens == 8000


def test_runs_of_a_single_step_tell_nothing() -> None:
    assert by_jobs([Pace(1, 10, 10, 0.0, 1.0, 1.0, 2.0)], Work("supervised", 5)) is None
    assert by_jobs([], Work("supervised", 5)) is None


def test_the_rule_goes_with_parameters_tokens_and_cores() -> None:
    def seconds(work: Work, n_parameters: int = 10**9, n_cores: int = 1, n_gpus: int = 0) -> float:
        return by_rule(work, n_parameters=n_parameters, n_cores=n_cores, n_gpus=n_gpus).seconds - 10

    one = seconds(Work("supervised", 1000))
    assert one == pytest.approx(4000e9 / 3e10)
    assert seconds(Work("supervised", 2000)) == pytest.approx(2 * one)
    assert seconds(Work("supervised", 1000), n_cores=4) == pytest.approx(one / 4)
    assert seconds(Work("dpo", 1000)) > one > seconds(Work("supervised", 1000), n_gpus=1)
    assert seconds(Work("reinforcement", 10, (100, 400))) > seconds(Work("supervised", 10 * 200))
    assert by_rule(Work("reinforcement", 1, (1, 1)), n_parameters=1, n_cores=1, n_gpus=0).trained_tokens is None


def test_memory_goes_with_the_model_and_its_longest_row() -> None:
    config = {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1024}

    def held(n_longest: int = 100, itemsize: int = 4, method: str = "supervised") -> int:
        return memory_bytes(config, n_parameters=14_000_000, n_longest=n_longest, itemsize=itemsize, method=method)

    assert 0.6e9 < held() < 1.1e9, "what the benchmarks measure of this shape is 0.6 GB in bf16"
    assert held() == held(1000) < held(8000)
    assert held(itemsize=2) < held() < held(method="dpo")


def test_the_constants_are_the_engine_s() -> None:
    from tunesmith.engine import memory

    assert (estimate.CPU_TOKENS, estimate.CPU_TREE_TOKENS) == (memory.CPU_TOKENS, memory.CPU_TREE_TOKENS)
    assert (estimate.N_HIDDEN, estimate.N_MLP) == (memory._N_HIDDEN, memory._N_MLP)

"""Prompts that begin as earlier ones: computed from there on, with the same answers, by nobody but their own project."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.sampler import prefixes
from tunesmith.sampler import waiting as waiting_module

FAMILIES = ("llama", "qwen3", "gemma2", "gemma3_text")
POSITION_BYTES = 3 * 2 * 2 * 8 * 4


def cached(tokens: list[list[Any]]) -> int:
    """Return what the first token tells, which is the only one that does."""
    assert all(token.cached == 0 for sample in tokens for token in (sample[1:] if sample is tokens[0] else sample))
    return tokens[0][0].cached


def logprobs(tokens: list[list[Any]]) -> list[float]:
    return [token.logprob for sample in tokens for token in sample]


def ids(tokens: list[list[Any]]) -> list[list[int]]:
    return [[token.token for token in sample] for sample in tokens]


@pytest.fixture
def system(make_prompts: Callable[..., Any]) -> list[int]:
    return make_prompts(1, seed=9, shortest=40, longest=40)[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_conversation_goes_on_from_where_it_was(
    family: str, make_engine: Callable[..., Any], make_prompts: Callable[..., Any], system: list[int]
) -> None:
    cold, warm = make_engine(family), make_engine(family, reuse=True)
    wishes: dict[str, Any] = {"max_tokens": 10, "temperature": 1.0, "seed": 4, "n": 3}
    said = system
    for turn, words in enumerate(make_prompts(4, longest=8)):
        prompt = said + words
        first = cold.ask(prompt, **wishes)[1].tokens(3)
        again = warm.ask(prompt, **wishes)[1].tokens(3)
        assert ids(again) == ids(first)
        assert logprobs(again) == pytest.approx(logprobs(first), abs=1e-5)
        assert cached(first) == 0
        assert cached(again) == (0 if turn == 0 else len(said) - 1), "all but the last token, which nobody read"
        said = prompt + ids(first)[0]


def test_the_same_prompt_again_computes_one_token(make_engine: Callable[..., Any], system: list[int]) -> None:
    bench = make_engine(reuse=True)
    first, again = (bench.ask(system, max_tokens=8, temperature=0.0)[1].tokens() for _ in range(2))
    assert (cached(first), cached(again)) == (0, len(system) - 1)
    assert ids(again) == ids(first)
    assert logprobs(again) == pytest.approx(logprobs(first), abs=1e-5)


def test_a_common_beginning_is_taken_from_a_row_under_way(
    make_engine: Callable[..., Any], system: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make_engine().greedy([*system, 7, 8], max_tokens=12)
    bench = make_engine(reuse=True)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.02")
    under_way = bench.ask([*system, 5, 6], max_tokens=60)[1]
    under_way.news.get(timeout=60)
    tokens = bench.ask([*system, 7, 8], max_tokens=12, temperature=0.0)[1].tokens()
    assert (cached(tokens), ids(tokens)) == (len(system), [expected])
    assert bench.engine.status()["rows"] == 1
    under_way.tokens()


def test_a_long_prompt_is_computed_in_parts_from_its_beginning_on(
    make_engine: Callable[..., Any], make_prompts: Callable[..., Any], system: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = system + make_prompts(1, shortest=40, longest=40)[0]
    expected = make_engine().greedy(prompt)
    monkeypatch.setattr(waiting_module, "N_MAX_PROMPT_TOKENS", 7)
    bench = make_engine(reuse=True)
    bench.greedy(system)
    n_steps = bench.engine.status()["steps"]
    tokens = bench.ask(prompt, max_tokens=12, temperature=0.0)[1].tokens()
    assert (cached(tokens), ids(tokens)) == (len(system), [expected])
    assert bench.engine.status()["steps"] - n_steps == 6 + 11, "40 tokens by 7, then one a step"


def test_adapters_and_projects_keep_to_themselves(
    make_engine: Callable[..., Any], make_adapter: Callable[..., Any], system: list[int]
) -> None:
    tuned = [None, make_adapter("llama", 1), make_adapter("llama", 2)]
    cold = [make_engine().greedy(system, adapter=adapter) for adapter in tuned]
    bench = make_engine(reuse=True)

    def ask(**wishes: Any) -> list[list[Any]]:
        return bench.ask(system, max_tokens=12, temperature=0.0, **wishes)[1].tokens()

    for project in ("a", "b"):
        for adapter, expected in zip(tuned, cold, strict=True):
            first, again = (ask(adapter=adapter, project=project) for _ in range(2))
            assert (cached(first), cached(again)) == (0, len(system) - 1)
            assert ids(first) == ids(again) == [expected]
    bench.engine.forget("llama-1")
    assert cached(ask(adapter=tuned[1], project="a")) == 0
    assert cached(ask(adapter=tuned[2], project="a")) == len(system) - 1


def test_what_was_left_in_the_middle_is_a_beginning_and_what_went_wrong_is_none(
    make_engine: Callable[..., Any], system: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_engine(reuse=True)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.02")
    left, said = bench.ask(system, max_tokens=80)
    said.news.get(timeout=60)
    left.cancelled.set()
    while bench.engine.status()["rows"]:
        time.sleep(0.01)
    assert cached(bench.ask(system, max_tokens=1)[1].tokens()) == len(system) - 1
    other = system[::-1]
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=raise")
    with pytest.raises(OSError, match="No space left"):
        bench.ask(other, max_tokens=5)[1].tokens()
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    assert cached(bench.ask(other, max_tokens=1)[1].tokens()) == 0


def test_a_prompt_that_is_told_itself_is_computed_whole(make_engine: Callable[..., Any], system: list[int]) -> None:
    bench = make_engine(reuse=True)
    bench.greedy(system)
    _, said = bench.ask(system, max_tokens=1, prompt_logprobs=True)
    assert len(said.news.get(timeout=60)) == len(system) - 1


def test_the_memory_is_bounded_and_rows_come_first(
    make_engine: Callable[..., Any], make_prompts: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 500 * POSITION_BYTES
    bench = make_engine(reuse=True, cache_bytes=bound)
    asked = make_prompts(12, shortest=40, longest=40)
    kept = bench.engine._prefixes
    for prompt in asked:
        assert cached(bench.ask(prompt, max_tokens=3, temperature=0.0)[1].tokens()) == 0
        assert bench.engine.status()["cache_bytes"] <= bound
    assert 40 * POSITION_BYTES < kept.n_bytes <= bound // 2
    assert cached(bench.ask(asked[-1], max_tokens=1)[1].tokens()) == 39
    assert cached(bench.ask(asked[0], max_tokens=1)[1].tokens()) == 0, "dropped by least use"
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.02")
    rows = [bench.ask([n, n, n], max_tokens=120)[1] for n in range(3, 7)]
    rows[-1].news.get(timeout=60)
    assert (bench.engine.status()["rows"], kept.n_bytes) == (4, 0)
    assert bench.engine.status()["cache_bytes"] <= bound
    for said in rows:
        said.tokens()


def test_only_so_many_are_kept_and_one_that_goes_on_takes_the_place_of_its_beginning(
    make_engine: Callable[..., Any], make_prompts: Callable[..., Any], system: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefixes, "N_MAX_KEPT", 2)
    bench = make_engine(reuse=True)
    kept = bench.engine._prefixes._kept
    for n in range(10):
        bench.greedy([*system, *range(5, 5 + n)], max_tokens=1)
        assert len(kept) == 1
    bench.greedy(system, max_tokens=1)
    assert len(kept) == 1
    for prompt in make_prompts(3, shortest=40, longest=40):
        bench.greedy(prompt, max_tokens=1)
    assert len(kept) == 2


def test_short_beginnings_are_left(make_engine: Callable[..., Any], system: list[int]) -> None:
    bench = make_engine(reuse=True)
    bench.greedy(system)
    assert cached(bench.ask([*system[:31], *system[::-1]], max_tokens=1)[1].tokens()) == 0
    assert cached(bench.ask([*system[:32], *system[::-1]], max_tokens=1)[1].tokens()) == 32


def test_without_the_wish_nothing_is_kept(make_engine: Callable[..., Any], system: list[int]) -> None:
    bench = make_engine()
    for _ in range(2):
        assert cached(bench.ask(system, max_tokens=2)[1].tokens()) == 0
    assert bench.engine._prefixes.n_bytes == 0

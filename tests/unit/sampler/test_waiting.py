"""Whose turn it is: projects take turns, each project's requests come in their order, and nobody is passed over."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tunesmith.sampler import waiting as waiting_module
from tunesmith.sampler.request import Request
from tunesmith.sampler.waiting import QueueFull, Waiting


class Hand:
    """A clock that is set by hand."""

    at = 100.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def asked(project: str, *, n: int = 1, n_prompt: int = 1) -> Request:
    return Request([1] * n_prompt, lambda _: None, project=project, n=n, max_tokens=1)


def begun(queue: Waiting, n_room: int) -> list[tuple[str, int]]:
    return [(each.request.project, each.n) for each in queue.admit([], lambda _: n_room)]


def test_projects_take_turns_and_one_alone_may_use_everything() -> None:
    queue = Waiting()
    for project in ["a"] * 5 + ["b"] * 2 + ["c"]:
        queue.add(asked(project))
    order = [project for _ in range(8) for project, _ in begun(queue, 1)]
    assert order == ["a", "b", "c", "a", "b", "a", "a", "a"]
    assert (len(queue), begun(queue, 1)) == (0, [])


def test_a_turn_of_many_samples_is_as_large_as_the_room_and_then_the_others_have_theirs() -> None:
    queue = Waiting()
    many = asked("a", n=5)
    for request in (many, asked("b"), asked("b")):
        queue.add(request)
    assert begun(queue, 3) == [("a", 3)]
    assert (many.n_begun, len(queue)) == (3, 3)
    assert [begun(queue, 1) for _ in range(5)] == [[("b", 1)], [("a", 1)], [("b", 1)], [("a", 1)], []]


def test_whoever_does_not_fit_yet_is_waited_for() -> None:
    queue = Waiting()
    queue.add(asked("a", n_prompt=100))
    queue.add(asked("b"))
    assert queue.admit([], lambda n_positions: 0 if n_positions > 50 else 9) == []
    assert begun(queue, 9) == [("a", 1), ("b", 1)]


def test_a_pass_takes_no_more_prompt_tokens_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "N_MAX_PROMPT_TOKENS", 10)
    queue = Waiting()
    for n_prompt in (6, 4, 1, 30):
        queue.add(asked("a", n_prompt=n_prompt))
    assert [len(queue.admit([], lambda _: 9)) for _ in range(3)] == [2, 1, 1]


def test_those_that_left_have_no_turn() -> None:
    queue = Waiting()
    requests = [asked(project) for project in "aab"]
    for request in requests:
        queue.add(request)
    queue.keep(lambda request: request is not requests[0] and request.project != "b")
    assert list(queue) == [requests[1]]


def test_more_than_may_wait_are_turned_away_and_told_when_to_come_again() -> None:
    clock = Hand()
    queue = Waiting(4, clock=clock)
    for n in (1, 1, 3, 1):
        assert queue.add(asked("a", n=n)) is None
    clock.at += 10
    with pytest.raises(QueueFull, match=r"4 requests wait .*Please try again in 30 s") as full:
        queue.add(asked("a"))
    assert full.value.retry_after_s == 30, "no sample has ended in 10 seconds, and half of 6 should"
    for _ in range(19):
        queue.ended()
    assert queue.full().retry_after_s == 2, "20 in 10 seconds"
    clock.at += 1000
    assert queue.full().retry_after_s == 60
    assert len(queue) == 4


def test_the_rate_is_that_of_late() -> None:
    clock = Hand()
    queue = Waiting(100, clock=clock)
    for _ in range(100):
        queue.add(asked("a"))
    clock.at += 10_000
    for _ in range(64):
        clock.at += 0.1
        queue.ended()
    assert queue.full().retry_after_s == 5


def test_a_project_with_few_waiting_takes_the_place_of_the_last_of_the_one_with_most() -> None:
    queue = Waiting(4)
    crowd = [asked("a") for _ in range(4)]
    for request in crowd:
        queue.add(request)
    assert queue.add(asked("b")) is crowd[3]
    assert queue.add(asked("b")) is crowd[2]
    for project in "ab":
        with pytest.raises(QueueFull):
            queue.add(asked(project))
    assert queue.add(asked("c")) is crowd[1]
    with pytest.raises(QueueFull):
        queue.add(asked("c"))
    assert len(queue) == 4


def test_nobody_that_has_begun_makes_room() -> None:
    queue = Waiting(1)
    queue.add(asked("a", n=2))
    assert begun(queue, 1) == [("a", 1)]
    with pytest.raises(QueueFull):
        queue.add(asked("b"))


def test_an_engine_tells_those_that_it_turns_away(make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "N_MAX_ROWS", 1)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.05")
    bench = make_engine(n_max_waiting=3)
    first = bench.ask([5], max_tokens=20)[1]
    first.news.get(timeout=60)
    crowd = [bench.ask([5], max_tokens=1, project="a")[1] for _ in range(3)]
    with pytest.raises(QueueFull):
        bench.ask([5], max_tokens=1, project="a")
    late = bench.ask([5], max_tokens=1, project="b")[1]
    with pytest.raises(QueueFull):
        crowd[2].tokens()
    for said in (first, late, *crowd[:2]):
        said.tokens()


def test_a_project_that_asks_once_does_not_wait_for_the_backlog_of_another(
    make_engine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting_module, "N_MAX_ROWS", 2)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.step=sleep:0.01")
    bench = make_engine()
    backlog = [bench.ask([5, 6, 7], max_tokens=8, project="greedy")[1] for _ in range(12)]
    backlog[0].news.get(timeout=60)
    modest = bench.ask([8, 9], max_tokens=2, project="modest")[1]
    began = time.monotonic()
    modest.tokens()
    assert time.monotonic() - began < 60
    n_ended = sum(_ended(said) for said in backlog)
    assert n_ended <= 4, "its turn is the next, not the thirteenth"
    for said in backlog:
        said.tokens()


def _ended(said: Any) -> bool:
    """Say whether an answer has been told to its end by now, without taking it away."""
    items = [said.news.get_nowait() for _ in range(said.news.qsize())]
    for item in items:
        said.news.put(item)
    return any(token.finish for item in items for token in item)

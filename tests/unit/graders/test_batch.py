import asyncio

import pytest
from pydantic import TypeAdapter

from tunesmith.core.clock import SystemClock
from tunesmith.graders.base import Sample, Tools
from tunesmith.graders.batch import Batch
from tunesmith.graders.grader import Grader

ANY = TypeAdapter(Grader)
SAME = {
    "type": "string_check",
    "name": "same",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.x }}",
    "operation": "eq",
}
BOTH = {
    "type": "multi",
    "name": "both",
    "graders": {"a": SAME, "b": {**SAME, "operation": "ne"}},
    "calculate_output": "a - b",
}


class Watched(type(ANY.validate_python(SAME))):
    """A string check that remembers how many grade at the same time, and how many have graded."""

    async def score(self, sample, tools, /):
        seen["now"] += 1
        seen["n"] += 1
        seen["most"] = max(seen["most"], seen["now"])
        await asyncio.sleep(0.001)
        seen["now"] -= 1
        return await super().score(sample, tools)


seen = {"now": 0, "n": 0, "most": 0}


@pytest.fixture(autouse=True)
def _begin():
    seen.update(now=0, n=0, most=0)


def samples(*texts):
    return [Sample.of_text(text, {"x": "yes"}) for text in texts]


def test_grades_come_in_order_each_computed_once_and_so_many_at_once():
    batch = Batch(Watched.model_validate(SAME), Tools(SystemClock()), n_at_once=3)

    async def twice():
        texts = [str(n) for n in range(20)] + ["yes", "yes", "yes"]
        first = await batch.grade(samples(*texts))
        assert (seen["n"], seen["most"]) == (21, 3)
        return first, await batch.grade(samples("yes", "no", "3"))

    first, second = asyncio.run(twice())
    assert [grade.reward for grade in first] == [0.0] * 20 + [1.0] * 3
    assert [grade.reward for grade in second] == [1.0, 0.0, 0.0]
    assert seen["n"] == 22
    assert batch.latencies()["same"].n == 22


def test_equal_samples_that_come_one_by_one_are_graded_once():
    batch = Batch(Watched.model_validate(SAME), Tools(SystemClock()), n_at_once=8)

    async def story():
        tasks = [asyncio.create_task(batch.one(sample)) for sample in samples("yes", "no", "yes", "yes")]
        await asyncio.sleep(0)
        tasks[0].cancel()  # the others wait on
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert [grade.reward for grade in done[1:]] == [0.0, 1.0, 1.0]
        assert seen["n"] == 2

    asyncio.run(story())


def test_a_grade_that_nobody_waits_for_any_more_is_given_up():
    batch = Batch(Watched.model_validate(SAME), Tools(SystemClock()), n_at_once=8)

    async def story():
        tasks = [asyncio.create_task(batch.one(sample)) for sample in samples("yes", "yes")]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (seen["n"], seen["now"]) == (1, 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert seen["now"] == 1  # it never came to its end
        assert (await batch.one(*samples("yes"))).reward == 1.0
        assert seen["n"] == 2

    asyncio.run(story())


def test_a_failed_grade_is_tried_again():
    batch = Batch(Watched.model_validate({**SAME, "reference": "{{ item.y }}"}), Tools(SystemClock()), n_at_once=1)
    for n in (1, 2):
        (grade,) = asyncio.run(batch.grade(samples("a")))
        assert list(grade.errors) == ["invalid_variable_error"]
        assert seen["n"] == n


def test_old_grades_are_forgotten():
    batch = Batch(Watched.model_validate(SAME), Tools(SystemClock()), n_at_once=1, n_kept=2)
    for texts, n in ((("a", "b"), 2), (("a", "c"), 3), (("a",), 3), (("b",), 4)):
        asyncio.run(batch.grade(samples(*texts)))
        assert seen["n"] == n


def test_latencies_are_told_for_each_grader_of_a_multi():
    batch = Batch(ANY.validate_python(BOTH), Tools(SystemClock()), n_at_once=4)
    asyncio.run(batch.grade(samples(*map(str, range(50)))))
    told = batch.latencies()
    assert {name: latency.n for name, latency in told.items()} == {"both": 50, "a": 50, "b": 50}
    assert 0 <= told["a"].p50 <= told["a"].p95 <= told["a"].p99
    assert told["both"].p50 >= told["a"].p50


@pytest.mark.parametrize(("formula", "score"), [("10 ^ 30 * a", 1e30), ("-10 ^ 31 * a", None), ("10 ^ 300 * a", None)])
def test_a_score_of_which_no_mean_could_be_made_is_none(formula, score):
    grader = ANY.validate_python({**BOTH, "calculate_output": formula})
    (grade,) = asyncio.run(Batch(grader, Tools(SystemClock()), n_at_once=1).grade(samples("yes")))
    assert grade.score == (None if score is None else pytest.approx(score))
    assert ["beyond 1e+30" in text for text in grade.errors.values()] == ([True] if score is None else [])

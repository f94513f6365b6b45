"""The bucket of a rate, by a clock of the test's."""

from tunesmith.domain.limits import Bucket
from tunesmith.services.limits import duration


def test_a_bucket_holds_a_minute_and_fills_evenly() -> None:
    bucket = Bucket(60, 100.0)
    assert (bucket.left(100.0), bucket.wait_s(60, 100.0), bucket.full_s(100.0)) == (60, 0.0, 0.0)
    bucket.take(60, 100.0)
    assert (bucket.left(100.0), bucket.wait_s(1, 100.0), bucket.full_s(100.0)) == (0, 1.0, 60.0)
    assert (bucket.left(102.5), bucket.wait_s(2, 102.5), bucket.wait_s(3, 102.5)) == (2, 0.0, 0.5)
    assert bucket.left(1000.0) == 60


def test_what_was_not_used_comes_back_and_what_was_used_beyond_is_missing() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(50, 0.0)
    bucket.give(40, 0.0)
    assert bucket.left(0.0) == 50
    bucket.give(-70, 0.0)
    assert (bucket.left(0.0), bucket.wait_s(1, 0.0)) == (0, 21.0)
    bucket.give(1000, 0.0)
    assert bucket.left(0.0) == 60


def test_another_size_forgets_nothing_that_was_used() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(50, 0.0)
    bucket.resize(100)
    assert bucket.left(0.0) == 50
    bucket.resize(20)
    assert bucket.left(0.0) == 0


def test_a_rate_of_nothing_lets_nobody_in() -> None:
    assert Bucket(0, 0.0).wait_s(1, 9.0) > 0


def test_times_are_told_as_openai_does() -> None:
    told = {
        0.0: "0s",
        0.0171: "18ms",
        0.5: "500ms",
        1.0: "1s",
        8.64: "8.64s",
        86.4: "1m26.4s",
        360.0: "6m0s",
        3602.0: "1h0m2s",
    }
    assert {seconds: duration(seconds) for seconds in told} == told

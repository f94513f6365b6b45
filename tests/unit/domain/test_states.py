"""The laws of the table of moves."""

import pytest

from tunesmith.domain.states import MOVES, TERMINAL, Status, sources


def test_every_status_has_its_row() -> None:
    assert set(MOVES) == set(Status)


def test_nothing_leaves_a_terminal_status_and_everything_else_can_end_in_failure_or_cancel() -> None:
    for status in Status:
        if status in TERMINAL:
            assert MOVES[status] == frozenset()
        else:
            assert {Status.FAILED, Status.CANCELLED} <= MOVES[status]


def test_only_a_running_job_succeeds_and_only_a_queued_one_starts() -> None:
    assert sources(Status.SUCCEEDED) == {Status.RUNNING}
    assert sources(Status.RUNNING) == {Status.QUEUED}


def test_cancel_is_possible_from_every_status_that_is_not_terminal() -> None:
    assert sources(Status.CANCELLED) == frozenset(Status) - TERMINAL


def test_every_status_is_reached_from_the_first_one() -> None:
    reached, edge = set[Status](), {Status.VALIDATING_FILES}
    while edge:
        reached |= edge
        edge = {target for status in edge for target in MOVES[status]} - reached
    assert reached == set(Status)


@pytest.mark.parametrize("status", Status)
def test_sources_are_the_table_read_backwards(status: Status) -> None:
    assert sources(status) == {source for source in Status if status in MOVES[source]}
    assert status not in MOVES[status]


def test_statuses_are_spelt_as_on_the_wire() -> None:
    assert {str(status) for status in Status} == {
        "validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled",
    }  # fmt: skip

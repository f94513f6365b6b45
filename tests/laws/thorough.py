"""What of a long table is run each time, and what by `make soak` alone: the same law, another way to it."""

import os
from collections.abc import Sequence
from typing import Final, TypeVar

#: `make soak` runs the whole of every table.
THOROUGH: Final = os.environ.get("TUNESMITH_TEST_PROFILE") == "soak"

Case = TypeVar("Case")


def some(cases: Sequence[Case], each_time: Sequence[Case]) -> Sequence[Case]:
    """Return all cases for a soak, else those that are run each time."""
    assert set(map(repr, each_time)) <= set(map(repr, cases))
    return cases if THOROUGH else each_time

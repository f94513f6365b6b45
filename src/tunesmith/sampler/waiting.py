# pyright: basic
"""Requests that wait for rows: how many may, whose turn it is among the projects, and how many samples begin now."""

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tunesmith.core.clock import Clock, SystemClock
from tunesmith.sampler.request import Intake, Request, Row

#: Rows at once, and prompt tokens taken in by one pass, so that rows under way never wait long for a newcomer.
N_MAX_ROWS: Final = 64
N_MAX_PROMPT_TOKENS: Final = 4096
#: What a client is asked to wait at most before it tries again: SDKs take a longer time for none.
LONGEST_PAUSE_S: Final = 60
#: Samples that ended lately, over which their rate is taken.
_N_LATELY: Final = 64


class QueueFull(Exception):
    """As many requests wait as may; after `retry_after_s` half of them should have begun, at the rate measured."""

    def __init__(self, n_waiting: int, retry_after_s: int) -> None:
        super().__init__(
            f"The model is busy: {n_waiting} requests wait for it, which are as many as may (`sampler_queue`). "
            f"Please try again in {retry_after_s} s"
        )
        self.retry_after_s = retry_after_s


class Waiting:
    """Who waits: projects take turns, the requests of each come in the order in which they were asked for.

    At most `n_max` wait. A newcomer beyond them is turned away, or, where its project has fewer waiting than another one,
    the last to come of the project that has most. Any thread may add; all else is the engine's.
    """

    def __init__(self, n_max: int | None = None, *, clock: Clock | None = None) -> None:
        self._n_max = n_max
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        #: By project, the one whose turn it is first; none is empty.
        self._queues: OrderedDict[str, deque[Request]] = OrderedDict()
        self._ended_at: deque[float] = deque(maxlen=_N_LATELY)
        self._since = 0.0

    def __len__(self) -> int:
        with self._lock:
            return self._n()

    def __iter__(self) -> Iterator[Request]:
        with self._lock:
            return iter([request for waiting in self._queues.values() for request in waiting])

    def add(self, request: Request) -> Request | None:
        """Let a request wait; return the one that makes room for it, to be told the same as who is turned away here.

        Raises:
            QueueFull: this one is turned away.
        """
        with self._lock:
            leaves = self._leaves(request) if self._n_max is not None and self._n() >= self._n_max else None
            if leaves is not None:
                self._queues[leaves.project].remove(leaves)
            if not self._queues:
                self._since = self._clock.monotonic()
                self._ended_at.clear()
            self._queues.setdefault(request.project, deque()).append(request)
        return leaves

    def full(self) -> QueueFull:
        """Return what is told to who is turned away."""
        return QueueFull(self._n(), self._pause_s())

    def ended(self) -> None:
        """Note that a sample has ended, which makes room for one that waits."""
        if self._n_max is not None:
            self._ended_at.append(self._clock.monotonic())

    def keep(self, wanted: Callable[[Request], bool]) -> None:
        """Let those go that are not wanted any more."""
        with self._lock:
            for project, waiting in list(self._queues.items()):
                self._queues[project] = deque(filter(wanted, waiting))
                if not self._queues[project]:
                    del self._queues[project]

    def admit(self, rows: Iterable[Row], room: Callable[[int], int]) -> list[Intake]:
        """Return the samples, in order, for which there is room beside the rows until they end.

        `room` tells how many rows of so many positions the memory has room for. Whoever cannot begin yet is waited for, so
        that a long request is not overtaken for ever.
        """
        admitted: list[Intake] = []
        lengths = [row.request.n_positions for row in rows]
        n_rows, n_tokens, longest = len(lengths), 0, max(lengths, default=0)
        with self._lock:
            while self._queues:
                project, waiting = next(iter(self._queues.items()))
                request = waiting[0]
                longest = max(longest, request.n_positions)
                n_room = min(N_MAX_ROWS, room(longest)) - n_rows
                n_tokens += len(request.prompt)
                if n_room < 1 or (admitted and n_tokens > N_MAX_PROMPT_TOKENS):
                    break
                n = min(n_room, request.n - request.n_begun)
                admitted.append(Intake(request, request.n_begun, n))
                request.n_begun += n
                n_rows += n
                if request.n_begun == request.n:
                    waiting.popleft()
                self._queues.move_to_end(project)
                if not waiting:
                    del self._queues[project]
        return admitted

    def _n(self) -> int:
        return sum(len(waiting) for waiting in self._queues.values())

    def _leaves(self, newcomer: Request) -> Request:
        """Return who makes room for a newcomer: one that has not begun, so that no answer breaks off.

        Raises:
            QueueFull: nobody does.
        """
        most = max(self._queues.values(), key=len)
        n_own = len(self._queues.get(newcomer.project, ()))
        last = most[-1]
        if n_own + 1 >= len(most) or last.n_begun:
            raise self.full()
        return last

    def _pause_s(self) -> int:
        """Return the seconds in which half of the samples that wait should have begun."""
        n_samples = sum(request.n - request.n_begun for waiting in self._queues.values() for request in waiting)
        now = self._clock.monotonic()
        # The one that ends next counts as ended: before any has, the time that went by is the least that one takes.
        since = self._ended_at[0] if len(self._ended_at) == _N_LATELY else self._since
        a_sample_s = (now - since) / (len(self._ended_at) + 1)
        return max(1, min(LONGEST_PAUSE_S, math.ceil(a_sample_s * n_samples / 2)))

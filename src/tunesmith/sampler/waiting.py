# pyright: basic
"""Requests that wait for rows: whose turn it is among the projects, and how many samples may begin now."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tunesmith.sampler.request import Intake, Request, Row

#: Rows at once, and prompt tokens taken in by one pass, so that rows under way never wait long for a newcomer.
N_MAX_ROWS: Final = 64
N_MAX_PROMPT_TOKENS: Final = 4096


class Waiting:
    """Who waits: projects take turns, the requests of each come in the order in which they were asked for."""

    def __init__(self) -> None:
        #: By project, the one whose turn it is first; none is empty.
        self._queues: OrderedDict[str, deque[Request]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in list(self._queues.values()))

    def __iter__(self) -> Iterator[Request]:
        return (request for waiting in self._queues.values() for request in waiting)

    def add(self, request: Request) -> None:
        """Let a request wait."""
        self._queues.setdefault(request.project, deque()).append(request)

    def keep(self, wanted: Callable[[Request], bool]) -> None:
        """Let those go that are not wanted any more."""
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

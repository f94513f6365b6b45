"""Many clients at once in a process of their own: GET requests over kept-alive connections, by raw sockets of asyncio.

Reads one JSON line from stdin: `port`, `paths` (by kind), `shares` (by kind), `n_connections`, `seconds`, and `rate` in
requests a second, 0 for as many as are answered. With a rate, a request's time begins when it was due, so that one which had
to wait for a connection counts whole. Writes one JSON line: milliseconds of each request by kind, and the seconds of this
process.
"""

import asyncio
import json
import random
import sys
import time
from collections import deque


class Line(asyncio.Protocol):
    """One connection: a request at a time."""

    def __init__(self, crowd: "Crowd") -> None:
        self.crowd = crowd
        self.received = bytearray()
        self.kind, self.due, self.wanted = "", 0.0, -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.crowd.free(self)

    def ask(self, kind: str, due: float) -> None:
        self.kind, self.due = kind, due
        self.transport.write(self.crowd.request(kind))

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.wanted < 0:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.received[:end]).lower()
            assert head.startswith(b"http/1.1 200 "), bytes(self.received)
            self.wanted = end + 4 + int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        if len(self.received) >= self.wanted:
            self.crowd.took[self.kind].append((time.perf_counter() - self.due) * 1000)
            self.received, self.wanted = bytearray(), -1
            self.crowd.free(self)


class Crowd:
    """The clients, and what they wait for."""

    def __init__(self, asked: dict) -> None:
        self.asked = asked
        self.chance = random.Random(0)
        self.kinds, self.shares = list(asked["shares"]), list(asked["shares"].values())
        self.took: dict[str, list[float]] = {kind: [] for kind in self.kinds}
        self.idle: deque[Line] = deque()
        self.late: deque[tuple[str, float]] = deque()
        self.open = False

    def request(self, kind: str) -> bytes:
        path = self.chance.choice(self.asked["paths"][kind])
        return f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer any\r\n\r\n".encode()

    def kind(self) -> str:
        return self.chance.choices(self.kinds, self.shares)[0]

    def free(self, line: Line) -> None:
        if self.late:
            line.ask(*self.late.popleft())
        elif self.open and not self.asked["rate"]:
            line.ask(self.kind(), time.perf_counter())
        else:
            self.idle.append(line)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self.asked["n_connections"]):
            await loop.create_connection(lambda: Line(self), "127.0.0.1", self.asked["port"])
        self.open, end = True, time.perf_counter() + self.asked["seconds"]
        if self.asked["rate"]:
            due = time.perf_counter()
            while due < end:
                due += self.chance.expovariate(self.asked["rate"])
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                if self.idle:
                    self.idle.popleft().ask(self.kind(), due)
                else:
                    self.late.append((self.kind(), due))
        else:
            while self.idle:
                self.idle.popleft().ask(self.kind(), time.perf_counter())
            await asyncio.sleep(self.asked["seconds"])
        self.open = False
        while len(self.idle) < self.asked["n_connections"]:  # noqa: ASYNC110 - what is answered last
            await asyncio.sleep(0.005)
        for line in self.idle:
            line.transport.close()


def main() -> None:
    crowd = Crowd(json.loads(sys.stdin.readline()))
    asyncio.run(crowd.run())
    print(json.dumps({"took": crowd.took, "cpu_s": time.process_time()}))


if __name__ == "__main__":
    main()

"""`tunesmith jobs watch`: a job to its end, through restarts of the server, with a word before Ctrl-C does anything."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, Final, TextIO, TypeVar

from tunesmith.cli.client import INTERRUPTED, JOB_CANCELLED, JOB_FAILED, NO_SERVER, Client, Refused, Unreachable, fail
from tunesmith.cli.job_calls import ENDED, N_PAGE, at
from tunesmith.cli.output import clean, duration
from tunesmith.cli.plotting import sparkline

POLL_S: Final = 0.5
#: How long a server may be away before a watch gives up.
PATIENCE_S: Final = 600.0
#: So answers what stands before a server that starts, and one that has too much to do, or stumbles.
_AWAY: Final = (408, 429, 500, 502, 503, 504)
_CODES: Final = {"succeeded": 0, "failed": JOB_FAILED, "cancelled": JOB_CANCELLED}
_BAR: Final = 24
_CURVE: Final = 20

Told = TypeVar("Told")


class Screen:
    """Where a watch is written: lines, and in a terminal a last line that changes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.terminal = stream.isatty()
        self.asks = self.terminal and sys.stdin.isatty()

    def line(self, text: str) -> None:
        """Write a line for good."""
        self._write(("\r\x1b[K" if self.terminal else "") + clean(text) + "\n")

    def status(self, text: str) -> None:
        """Change the last line; without a terminal there is none."""
        if self.terminal:
            self._write("\r\x1b[K" + text[: shutil.get_terminal_size().columns - 1])

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class Watch:
    """One job that is looked at again and again."""

    def __init__(self, client: Client, job: dict[str, Any], screen: Screen) -> None:
        self._client, self.job, self._screen = client, job, screen
        self._seen: set[str] = set()
        self._status = ""
        self._curve: dict[int, float] = {}
        self._name = "loss"
        self._step, self._total, self._tenth = 0, 0, -1

    def to_its_end(self) -> int:
        """Follow the job and return the exit code."""
        while True:
            try:
                self._look()
                if self.job["status"] in ENDED:
                    return self._ended()
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                if self._detaches():
                    self._screen.line(f"{self.job['id']} goes on without you: `tunesmith jobs watch {self.job['id']}`.")
                    return INTERRUPTED

    def _look(self) -> None:
        self.job = self._patiently(lambda: self._client.request("GET", at(self.job["id"])))
        fresh: list[dict[str, Any]] = []
        after = ""
        while True:
            path = at(self.job["id"], f"/events?limit={N_PAGE}{after}")
            page = self._patiently(lambda path=path: self._client.request("GET", path))
            new = [event for event in page["data"] if event["id"] not in self._seen]
            fresh += new
            if len(new) < len(page["data"]) or not page["has_more"]:
                break
            after = f"&after={page['data'][-1]['id']}"
        for event in reversed(fresh):
            self._seen.add(event["id"])
            self._take(event)
        if self.job["status"] != self._status:
            self._status = self.job["status"]
            way = f": `tunesmith jobs resume {self.job['id']}` lets it go on" if self._status == "paused" else ""
            if self._status not in ENDED:
                self._screen.line(f"{self.job['id']} is {self._status.replace('_', ' ')}{way}")
        self._screen.status(self._progress())

    def _take(self, event: dict[str, Any]) -> None:
        data = event.get("data") or {}
        if event.get("type") != "metrics" or not isinstance(data.get("step"), int):
            self._screen.line(f"{time.strftime('%H:%M:%S', time.localtime(event['created_at']))}  {event['message']}")
            return
        self._step, self._total = data["step"], data.get("total_steps") or self._total
        for name, label in (("train_mean_reward", "reward"), ("train_loss", "loss")):
            if isinstance(data.get(name), int | float):
                self._curve[self._step], self._name = data[name], label
                break
        tenth = 10 * self._step // self._total if self._total else 0
        if tenth > self._tenth:
            self._tenth = tenth
            if not self._screen.terminal:
                self._screen.line(" ".join(self._figures()))

    def _figures(self) -> list[str]:
        figures = [f"step {self._step:,}/{self._total:,}" if self._total else f"step {self._step:,}"]
        if self._curve:
            figures.append(f"{self._name} {list(self._curve.values())[-1]:.4g}")
        ends = self.job.get("estimated_finish")
        if ends and self._status == "running":
            figures.append(f"{duration(max(0, ends - time.time()))} left")
        return figures

    def _progress(self) -> str:
        """Return the line that changes: a bar, the step, the curve so far, and the time that is left."""
        if not self._total:
            return self._status.replace("_", " ")
        share = min(1.0, self._step / self._total)
        percent, step, *others = words = [f"{share:>4.0%}", *self._figures()]
        room = shutil.get_terminal_size().columns - 1 - len("  ".join(words)) - 4
        width = max(4, min(_BAR, room // 2))
        done = round(share * width)
        curve = sparkline(list(self._curve.values()), min(_CURVE, room - width))
        return "  ".join(filter(None, [f"{'█' * done}{'░' * (width - done)} {percent}", step, curve, *others]))

    def _patiently(self, ask: Callable[[], Told]) -> Told:
        """Ask, and ask again while the server is away; it is told once that it is, and once that it is back."""
        away: float | None = None
        while True:
            try:
                told = ask()
            except Refused as error:
                if error.status not in _AWAY:
                    fail(str(error), error=error.error)
                problem: Exception = error
            except Unreachable as error:
                problem = error
            else:
                if away is not None:
                    self._screen.line("The server answers again.")
                return told
            if away is None:
                away = time.monotonic()
                self._screen.line(
                    "The server does not answer; waiting for it. A job that runs goes on, or is taken up again."
                )
            if time.monotonic() - away > PATIENCE_S:
                fail(str(problem), NO_SERVER)
            time.sleep(POLL_S)

    def _detaches(self) -> bool:
        """Ask what Ctrl-C was to mean; a second one detaches, and so does the first where nobody can be asked."""
        if not self._screen.asks:
            return True
        try:
            while True:
                self._screen.status("[d]etach and let the job go on, [c]ancel the job, or [w]atch on? ")
                said = (sys.stdin.readline() or "d").strip().lower()
                if said in ("d", "detach", ""):
                    return True
                if said in ("w", "watch"):
                    return False
                if said in ("c", "cancel"):
                    self.job = self._patiently(lambda: self._client.request("POST", at(self.job["id"], "/cancel")))
                    return False
        except KeyboardInterrupt:
            return True

    def _ended(self) -> int:
        self._screen.status("")
        status, model = self.job["status"], self.job["fine_tuned_model"]
        if status == "succeeded":
            took = self.job["finished_at"] - self.job["created_at"] if self.job["finished_at"] else 0
            self._screen.line(f"{model} is ready, {duration(took)} after the job was created.")
        elif status == "failed" and self.job["error"]:
            self._screen.line(f"{self.job['id']} failed: {self.job['error'].get('message')}")
        else:
            self._screen.line(f"{self.job['id']} {'failed' if status == 'failed' else 'was cancelled'}.")
        return _CODES[status]


def watch(client: Client, job: dict[str, Any], *, as_json: bool) -> tuple[dict[str, Any], int]:
    """Watch a job to its end; return its last object and the exit code."""
    watching = Watch(client, job, Screen(sys.stderr if as_json else sys.stdout))
    code = watching.to_its_end()
    return watching.job, code

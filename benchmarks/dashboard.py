"""The dashboard: how fast pages are drawn, a curve of 50,000 points among them, and what open ones cost a running job.

A real server and, for what is drawn, Debian's Chromium without a screen on the same machine. Times are Chromium's own:
`first paint` is its first contentful paint, `curve` the moment after the frame in which the chart of the loss stands, both
from the navigation on. A cold page has nothing in the browser's cache.

What open dashboards cost is measured with tabs that hold a websocket as a browser does (`_tabs.py`), since 50 browsers
would take the machine from the job by themselves: on the page of a job that trains, in windows that alternate with windows
without any. The process of the tabs is the least of all to the kernel (`nice` 19), as browsers are on other machines.

    python -m benchmarks.dashboard [--rounds 5] [--tabs 50] [--pairs 6] [--seconds 20]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks._many_jobs import PROJECT, fill
from benchmarks._server import Server, end_with_the_benchmark
from benchmarks.cancel import Owner
from tunesmith.core.clock import SystemClock
from tunesmith.core.ids import Ids
from tunesmith.store.session import Database
from tunesmith.store.tables import metrics
from tunesmith.supervisor import tree

N_POINTS = 50_000
GOAL_PAINT_S = 1.0
GOAL_CURVE_S = 1.0
GOAL_LOSS = 0.02
#: Notes when the chart of the loss has been drawn, before any script of the page runs.
WATCH = """
const look = () => {
  if (!document.querySelector('[aria-label*="Loss"] canvas')) return requestAnimationFrame(look);
  requestAnimationFrame(() => setTimeout(() => { window.curveAt = performance.now(); }));
};
requestAnimationFrame(look);
"""
PAINT = "return (performance.getEntriesByName('first-contentful-paint')[0] || {}).startTime"


def long_job(folder: Path) -> str:
    """Put a job of many points into a data folder and return its id."""
    [job] = fill(folder, 1)
    db = Database(f"sqlite:///{folder / 'tunesmith.db'}", clock=SystemClock(), ids=Ids())
    rows = [
        {"job_id": job, "step": step, "project_id": PROJECT, "data": {"train_loss": 4 / step**0.5}}
        for step in range(1, N_POINTS + 1)
    ]
    with db.begin() as tx:
        tx.execute(insert(metrics), rows)
    db.close()
    return job


def browser(profile: Path) -> Any:
    """Start Chromium."""
    from selenium import webdriver

    chromium, steering = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or steering is None:
        sys.exit("no browser here: install Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    quiet = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run"
    for flag in f"--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --window-size=1300,1000 {quiet}".split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(steering))
    driver.execute_cdp_cmd("Page.enable", {})
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    return driver


def drawn(driver: Any, url: str, what: str) -> float:
    """Open a page and return the seconds that a script tells once it does."""
    driver.get(url)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if (value := driver.execute_script(what)) is not None:
            return value / 1000
        time.sleep(0.02)
    sys.exit(f"{url} was not drawn within a minute")


def draw(folder: Path, rounds: int) -> bool:
    """Measure what is drawn, print it, and say whether the goals are met."""
    job = long_job(folder / "data")
    good = True
    with Server(folder) as server:
        root = server.url.removesuffix("/v1")
        driver = browser(folder / "profile")
        try:
            driver.get(f"{root}/dashboard/")  # the first page of a server imports NiceGUI
            print(f"\n{rounds} rounds; seconds, median (shortest to longest)\n")
            print("| page | what | cold | warm |\n|---|---|---|---|")
            for name, path, what, script, goal in (
                ("jobs", "/", "first paint", PAINT, GOAL_PAINT_S),
                ("models", "/models", "first paint", PAINT, GOAL_PAINT_S),
                ("a job", f"/jobs/{job}", "first paint", PAINT, GOAL_PAINT_S),
                (f"a job of {N_POINTS:,} points", f"/jobs/{job}", "curve", "return window.curveAt", GOAL_CURVE_S),
            ):
                told: list[str] = []
                for cold in (True, False):
                    took: list[float] = []
                    for _ in range(rounds):
                        driver.get("about:blank")
                        if cold:
                            driver.execute_cdp_cmd("Network.clearBrowserCache", {})
                        took.append(drawn(driver, f"{root}/dashboard{path}", script))
                    good &= statistics.median(took) < goal
                    told.append(f"{statistics.median(took):.2f} ({min(took):.2f} to {max(took):.2f})")
                print(f"| {name} | {what} | {' | '.join(told)} |", flush=True)
        finally:
            driver.quit()
    return good


@dataclass
class Window:
    """A stretch of a running job."""

    seconds: float
    steps: int
    #: Processor seconds of the job's processes and of the server.
    job_s: float
    server_s: float

    @property
    def step_ms(self) -> float:
        """Wall time of a step, in milliseconds."""
        return self.seconds / self.steps * 1000

    @property
    def step_cpu_ms(self) -> float:
        """Processor time of a step, in milliseconds."""
        return self.job_s / self.steps * 1000


class Running:
    """A job that trains, with its processes."""

    def __init__(self, server: Server, job: str) -> None:
        self._server = server
        self._job = job
        self._owner = Owner(server.url, "tunesmith-nano")
        self._pids = [process.pid for process in tree.tagged(job)]

    def window(self, seconds: float) -> Window:
        """Watch for a while, from the end of a step to the end of another."""
        began, (step, job_s, server_s) = self._at_a_step()
        time.sleep(seconds)
        ended, (last, job_end, server_end) = self._at_a_step()
        return Window(ended - began, last - step, job_end - job_s, server_end - server_s)

    def _at_a_step(self) -> tuple[float, tuple[int, float, float]]:
        known = self._step()
        while (step := self._step()) == known:
            time.sleep(0.005)
        return time.perf_counter(), (step, sum(map(cpu_s, self._pids)), self._server.cpu_ms() / 1000)

    def _step(self) -> int:
        path = f"{self._server.url.removesuffix('/v1')}/tunesmith/v1/fine_tuning/jobs/{self._job}"
        return int(self._owner.client.get(path, cast_to=dict[str, Any])["step"] or 0)


def cpu_s(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def watched(server: Server, job: str, n_tabs: int, running: Running, seconds: float) -> tuple[Window, dict[str, float]]:
    """Return a window in which dashboards are open on the job's page, and what came to them."""
    tabs = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._tabs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert tabs.stdin is not None
    assert tabs.stdout is not None
    os.setpriority(os.PRIO_PROCESS, tabs.pid, 19)
    root = server.url.removesuffix("/v1")
    tabs.stdin.write(json.dumps({"root": root, "path": f"/jobs/{job}", "n": n_tabs}) + "\n")
    tabs.stdin.flush()
    if tabs.stdout.readline().strip() != "open":
        sys.exit("the tabs did not open")
    window = running.window(seconds)
    tabs.stdin.close()
    told: dict[str, float] = json.loads(tabs.stdout.readline())
    tabs.wait()
    return window, told


def cost(folder: Path, n_tabs: int, n_pairs: int, seconds: float) -> bool:
    """Measure what open dashboards cost a job, print it, and say whether the goal is met."""
    with Server(folder, TUNESMITH_TRAINING_THREADS="1", OMP_NUM_THREADS="1") as server:
        owner = Owner(server.url, "tunesmith-nano")
        [job] = owner.create(1)
        while not owner.at_work(job, stepping=True):
            time.sleep(0.2)
        running = Running(server, job)
        watched(server, job, 1, running, 2)  # NiceGUI is imported, every path has been taken
        print(f"\n{n_tabs} dashboards open on the page of a job that trains, {n_pairs} pairs of {seconds:.0f} s\n")
        print("| | job, CPU ms a step | wall ms a step | steps | server, CPU s a second | messages a second | KB a second |")
        print("|---|---|---|---|---|---|---|", flush=True)
        ratios: list[tuple[float, float]] = []
        for pair in range(n_pairs):
            found: dict[bool, Window] = {}
            for with_tabs in (False, True) if pair % 2 == 0 else (True, False):
                if with_tabs:
                    window, told = watched(server, job, n_tabs, running, seconds)
                    came = f"{told['n_messages'] / window.seconds:.0f} | {told['n_bytes'] / window.seconds / 1000:.0f}"
                else:
                    window, came = running.window(seconds), " | "
                found[with_tabs] = window
                name = "open" if with_tabs else "none"
                print(f"| {name} | {window.step_cpu_ms:.2f} | {window.step_ms:.2f} | {window.steps} ", end="")
                print(f"| {window.server_s / window.seconds:.3f} | {came} |", flush=True)
            ratios.append((found[True].step_cpu_ms / found[False].step_cpu_ms, found[True].step_ms / found[False].step_ms))
        owner.client.fine_tuning.jobs.cancel(job)
    cpu, wall = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"\nmedian of the pairs: a step takes {cpu - 1:+.1%} processor time and {wall - 1:+.1%} wall time", flush=True)
    return wall - 1 < GOAL_LOSS


def main() -> int:
    """Measure, print, and return 1 unless the goals are met."""
    end_with_the_benchmark()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tabs", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", choices=("draw", "cost"))
    asked = parser.parse_args()
    good = True
    if asked.only != "cost":
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            good &= draw(Path(folder), asked.rounds)
    if asked.only != "draw":
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            good &= cost(Path(folder), asked.tabs, asked.pairs, asked.seconds)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())

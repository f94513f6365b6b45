"""What is noted in a measured process: seconds of processor and wall at each optimizer step, and what each step was of."""

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stretch:
    """Steps `first` to `last` of a run, counted from 0, that are measured together; `last` None is the end."""

    name: str
    first: int
    last: int | None = None


class Stopwatch:
    """Notes process CPU seconds and wall seconds at each optimizer step, and how much each step was worth."""

    def __init__(self) -> None:
        self.born = float(os.environ["BENCH_BORN"])
        self.marks: list[tuple[float, float]] = []
        #: Of each step, in the unit of the work: trained tokens, pairs, sampled tokens.
        self.worth: list[float] = []
        #: CPU and wall seconds of a pass before the first step that prepares all rows of the first epoch.
        self.before = (0.0, 0.0)

    def mark(self) -> None:
        """One more optimizer step is done."""
        self.marks.append((time.process_time(), time.time()))

    def figures(self, stretches: tuple[Stretch, ...]) -> dict[str, float]:
        """Return the rates of each stretch, time to the first step, and peak memory."""
        found: dict[str, float] = {}
        for number, stretch in enumerate(stretches):
            last = len(self.marks) if stretch.last is None else stretch.last
            (cpu_0, wall_0), (cpu_1, wall_1) = self.marks[stretch.first - 1], self.marks[last - 1]
            worth = sum(self.worth[stretch.first : last])
            # what a pass over all rows has prepared counts where those rows are first trained on
            share = worth / sum(self.worth[:last]) if number == 0 else 0.0
            found[f"{stretch.name} per CPU s"] = worth / (cpu_1 - cpu_0 + share * self.before[0])
            found[f"{stretch.name} per wall s"] = worth / (wall_1 - wall_0 + share * self.before[1])
        return found | {
            "first step CPU s": self.marks[0][0],
            "first step wall s": self.marks[0][1] - self.born,
            "peak GB": peak_gb(),
        }


def peak_gb() -> float:
    """Return the most memory this process has held; `getrusage` would count the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6

"""Memory growth of checking and of validating a 512 MB training file, each in a process of its own; promised: 64 MB.

`python -m benchmarks.validate_memory [--megabytes 512]`. Growth is the peak of the process on the large file less its peak
on a file of 1 MB. Validation takes a few minutes: it tokenizes every row, which is what its time goes into.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

PROMISED_MB = 64
MEGABYTE = 1000 * 1000
MAX_LINE_BYTES = 64 * 1024 * 1024
TEXT = (
    "the customer asks when a parcel will arrive and the assistant answers politely what is the weather in paris it is "
    "sunny route this ticket to billing shipping repair or returns i need help with my printer it does not turn on"
)


def rows() -> Iterator[bytes]:
    """Yield lines of training rows, each another one, without end."""
    rng = random.Random(7)
    words = TEXT.split()

    def text(n_words: int) -> str:
        return " ".join(rng.choices(words, k=n_words))

    while True:
        said = [("system", 20), ("user", rng.randrange(20, 90)), ("assistant", rng.randrange(5, 40))]
        yield json.dumps({"messages": [{"role": role, "content": text(n)} for role, n in said]}).encode() + b"\n"


def write(path: Path, n_bytes: int) -> None:
    """Write rows until the file has `n_bytes`."""
    with path.open("wb") as file:
        source = rows()
        while file.tell() < n_bytes:
            file.write(next(source))


def check(path: Path) -> int:
    """Check a file as an upload is checked; return its rows."""
    from tunesmith.data.jsonl import JsonlCheck

    checked = JsonlCheck(max_line_bytes=MAX_LINE_BYTES)
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            checked.feed(chunk)
    checked.finish()
    return checked.n_rows


class OneFile:
    """The blobs of a validation that has one file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, key: str) -> BinaryIO:  # noqa: ARG002 - a port's signature
        return self._path.open("rb")


class Printed:
    """The reporter of a validation that has nobody to report to."""

    def __init__(self) -> None:
        self.n_examples = 0

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:  # noqa: ARG002 - the same
        print(f"   {text}", file=sys.stderr, flush=True)

    def validated(self, data: dict[str, Any]) -> None:
        self.n_examples = data["n_examples"]

    def failed(self, code: str, param: str | None, message: str) -> None:  # noqa: ARG002 - the same
        raise SystemExit(f"{code}: {message}")


def validate(path: Path) -> int:
    """Validate a file as a job's worker does; return its rows."""
    from tunesmith.core.channel import Task
    from tunesmith.domain.tasks import ValidateSpec
    from tunesmith.worker import validate

    base = files("tunesmith") / "bases" / "tunesmith-nano"
    spec = ValidateSpec(
        method="supervised",
        method_config={},
        base_path=str(base),
        context_length=2048,
        blobs="",
        training_file="file-benchmark",
        training_key="training",
        validation_file=None,
        validation_key=None,
        max_line_bytes=MAX_LINE_BYTES,
    )
    printed = Printed()
    task = Task("validate", "ftjob-benchmark", 1, "", "", "", {})
    validate.run(task, spec, printed, None, OneFile(path))  # type: ignore[arg-type] - it asks for no more of them
    return printed.n_examples


def measure(what: str, path: Path) -> dict[str, float]:
    """Run one kind of reading in a process of its own; return its peak in MB, its seconds and its rows."""
    command = [sys.executable, "-m", "benchmarks.validate_memory", "--child", what, str(path)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(out.splitlines()[-1])


def child(what: str, path: Path) -> None:
    """Do what `measure` asks and print the figures."""
    began = time.perf_counter()
    n_rows = {"check": check, "validate": validate}[what](path)
    took_s = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    figures = {"peak_mb": used.ru_maxrss * 1024 / MEGABYTE, "took_s": took_s, "n_rows": n_rows}
    print(json.dumps({**figures, "cpu_s": used.ru_utime + used.ru_stime}))


def main() -> int:
    """Measure both readings on both files; return 1 if a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child[0], Path(arguments.child[1]))
        return 0
    broken = False
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "small.jsonl", Path(folder) / "large.jsonl"
        write(small, MEGABYTE)
        write(large, arguments.megabytes * MEGABYTE)
        for what in ("check", "validate"):
            least, most = measure(what, small), measure(what, large)
            growth_mb, size = most["peak_mb"] - least["peak_mb"], arguments.megabytes
            broken |= growth_mb > PROMISED_MB
            print(
                f"{what:9} {size} MB, {most['n_rows']:,} rows: growth {growth_mb:.1f} MB "
                f"(peak {most['peak_mb']:.0f} MB; promised {PROMISED_MB}), {most['took_s']:.0f} s, "
                f"{size / most['took_s']:.1f} MB/s, {size / most['cpu_s']:.1f} MB per CPU second",
                flush=True,
            )
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())

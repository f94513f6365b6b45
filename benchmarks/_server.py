"""The server that the benchmarks measure: a process of its own on a data folder, and what the kernel says of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

READY = "Tunesmith is ready at "


class Server:
    """A server on `folder/data`, ended with the block; `settings` are environment variables."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self._log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith", "serve", "--port", "0", "--data-dir", str(folder / "data")],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | {"TUNESMITH_SAMPLER_WARM": "0", "TUNESMITH_WARM_SPARES": "0"} | settings,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith(READY):
            self.process.kill()
            sys.exit((folder / "server.log").read_text())
        self.url = line.removeprefix(READY).strip()
        self.port = int(self.url.rsplit(":", 1)[1].removesuffix("/v1"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Stop the server."""
        self.process.send_signal(signal.SIGTERM)
        self.close()

    def close(self) -> None:
        """Wait for the end of a server that was told or killed."""
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def memory_mb(self, line: str) -> float:
        """Return a line of the process's memory status in megabytes (`VmRSS` now, `VmHWM` its peak)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{line}:")[2].split()[0]) / 1024

    def cpu_ms(self) -> float:
        """Return the processor time that the server has used, in milliseconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        """Have the kernel measure the peak anew."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")


def end_with_the_benchmark() -> None:
    """Make SIGTERM an ordinary exit, so that no server outlives a benchmark that is cut short."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

"""What this machine has: cores, memory, disk, accelerators; standard library only, asked when asked and never cached."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator as its driver reports it."""

    name: str
    memory_bytes: int


def n_cores() -> int:
    """Return the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the memory this process may use: the machine's, or the container's limit where that is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file():
            text = limit.read_text().strip()
            if text.isdigit():
                total = min(total, int(text))
    return total


def process_bytes(pid: int) -> int:
    """Return the memory that a process holds, with its share of what it shares; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def free_disk_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds `folder`, or that will hold it once it is made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def gpus() -> list[Gpu]:
    """Return the NVIDIA GPUs that the driver's own tool lists; none where the tool is absent or fails."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found: list[Gpu] = []
    for line in answer.stdout.splitlines() if answer.returncode == 0 else []:
        name, _, megabytes = line.rpartition(",")
        if megabytes.strip().isdigit():
            found.append(Gpu(name=name.strip(), memory_bytes=int(megabytes) * 1024 * 1024))
    return found


def has_bf16() -> bool:
    """Say whether the processor multiplies bf16 natively; False where the system does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def readable_bytes(n_bytes: float) -> str:
    """Return a size as a person reads it, such as `9.4 MB` or `1.6 GB` (powers of 1000)."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"

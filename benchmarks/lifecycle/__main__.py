"""Measure the life of jobs, part by part: `python -m benchmarks.lifecycle [part …]`; three hours of work in all."""

import subprocess
import sys
from pathlib import Path

PARTS = ("cancels", "recovery", "equality", "kills")


def main() -> int:
    """Run the named parts, or all; return 1 if one found what should not be."""
    names = sys.argv[1:] or PARTS
    if unknown := set(names) - set(PARTS):
        print(f"no part named {', '.join(unknown)}; there are: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    failed = False
    for name in names:
        print(f"-- lifecycle, {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.lifecycle.{name}"]
        failed |= subprocess.run(command, check=False, cwd=Path(__file__).parents[2]).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

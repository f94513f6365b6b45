"""Run every benchmark of this folder, one after another: `python -m benchmarks [name …]`."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> int:
    """Run the named benchmarks, or all of them; return 1 if one failed."""
    modules = (*HERE.glob("*.py"), *(path.parent for path in HERE.glob("*/__main__.py")))
    known = sorted(path.stem for path in modules if not path.stem.startswith("_"))
    names = sys.argv[1:] or known
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"no benchmark named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = False
    for name in names:
        print(f"== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False, cwd=HERE.parent).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

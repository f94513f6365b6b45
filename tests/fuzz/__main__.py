"""A server on a fresh folder, asked for some seconds what Schemathesis makes of its description: `python -m fuzz [SECONDS]`.

Fails on any answer of 5xx, and on any refusal that is not OpenAI's error object. `make fuzz FUZZ_S=600 FUZZ_WORKERS=2`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._server import Server

#: Of an environment of its own: what Schemathesis needs is no part of the development set.
SCHEMATHESIS = os.environ.get("TUNESMITH_SCHEMATHESIS", ".venv-fuzz/bin/schemathesis")


def main() -> int:
    """Run, show what was found, and return its exit code."""
    seconds, workers = sys.argv[1] if len(sys.argv) > 1 else "120", os.environ.get("FUZZ_WORKERS", "1")
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="tunesmith-fuzz-") as name, Server(Path(name), HF_HUB_OFFLINE="1") as server:
        root = server.url.removesuffix("/v1")
        command = [
            *(SCHEMATHESIS, "run", f"{root}/openapi.json", "--url", root, "--max-time", seconds, "--workers", workers),
            *("--checks", "not_a_server_error,says_it_as_openai_does", "--phases", "coverage,fuzzing,stateful"),
            *("--suppress-health-check", "all", "--request-timeout", "60", "--continue-on-failure", "--no-color"),
        ]
        environment = {**os.environ, "PYTHONPATH": str(here), "SCHEMATHESIS_HOOKS": "checks"}
        told = subprocess.run(command, env=environment, check=False, cwd=name if Path(SCHEMATHESIS).is_absolute() else None)
        crashed = [line for line in (Path(name) / "server.log").read_text().splitlines() if "request.crashed" in line]
    sys.stderr.writelines(f"{line}\n" for line in crashed)
    return told.returncode or bool(crashed)


if __name__ == "__main__":
    sys.exit(main())

"""A server on a fresh folder, asked for some seconds what Schemathesis makes of its description: `python -m fuzz [SECONDS]`.

Fails on any answer of 5xx, and on any refusal that is not OpenAI's error object. `make fuzz FUZZ_S=600 FUZZ_WORKERS=2`.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks._server import Server

#: Of an environment of its own: what Schemathesis needs is no part of the development set.
SCHEMATHESIS = str(Path(os.environ.get("TUNESMITH_SCHEMATHESIS", ".venv-fuzz/bin/schemathesis")).absolute())


#: What the report says of an operation for which a mutated schema could not be turned into values; it stands under its name.
UNMADE = "Failed to generate test cases for this API operation"


def main() -> int:
    """Run, show what was found, and return its exit code."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "120"
    with tempfile.TemporaryDirectory(prefix="tunesmith-fuzz-") as name, Server(Path(name), HF_HUB_OFFLINE="1") as server:
        code, told = ask(server, name, "--max-time", seconds, "--phases", "coverage,fuzzing,stateful")
        unmade = re.findall(rf"^_+ [A-Z]+ (/\S+) _+\nSchema Error\n\n{UNMADE}", told, re.MULTILINE)
        if unmade and re.search(rf"^=+ {len(unmade)} errors?\b(?!, .*fail)", told, re.MULTILINE):
            # A limit of the generator, met at random, and all that there is: these operations are asked again by themselves.
            paths = [word for path in unmade for word in ("--include-path", path)]
            code, _ = ask(server, name, *paths, "--max-time", "60", "--phases", "fuzzing", "--mode", "positive")
        crashed = [line for line in (Path(name) / "server.log").read_text().splitlines() if "request.crashed" in line]
    sys.stderr.writelines(f"{line}\n" for line in crashed)
    return code or bool(crashed)


def ask(server: Server, folder: str, *options: str) -> tuple[int, str]:
    """Run Schemathesis, show what it says, and return its exit code and that."""
    root = server.url.removesuffix("/v1")
    command = [
        *(SCHEMATHESIS, "run", f"{root}/openapi.json", "--url", root, "--workers", os.environ.get("FUZZ_WORKERS", "1")),
        *("--checks", "not_a_server_error,says_it_as_openai_does", *options),
        *("--suppress-health-check", "all", "--request-timeout", "60", "--continue-on-failure", "--no-color"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "SCHEMATHESIS_HOOKS": "checks"}
    told = ""
    with subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True) as run:
        for line in run.stdout or ():
            sys.stdout.write(line)
            told += line
    return run.returncode, told


if __name__ == "__main__":
    sys.exit(main())

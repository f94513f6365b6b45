"""The server's side stands without torch: none of its modules loads it, and the whole of it loads fast."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "peft", "numpy")
SIDES = {
    "server": ("tunesmith.cli.main", "tunesmith.cli.serve", "tunesmith.api.app", "tunesmith.bootstrap"),
    "supervisor": ("tunesmith.supervisor.main", "tunesmith.supervisor.spare"),
    "validation": ("tunesmith.worker.validate",),
}
WEB = ("sqlalchemy", "fastapi", "starlette")


def loaded(*modules: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded once it has imported the modules."""
    program = f"import sys, {', '.join(modules)}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("side", SIDES)
def test_no_torch_is_loaded(side: str) -> None:
    assert loaded(*SIDES[side]) & set(HEAVY) == set()


def test_the_compute_side_loads_no_web() -> None:
    assert loaded("tunesmith.worker.run", "tunesmith.worker.validate") & set(WEB) == set()


def test_the_supervisor_loads_nothing_but_the_standard_library() -> None:
    ours = loaded(*SIDES["supervisor"]) - loaded("sys")
    assert {name for name in ours if name not in sys.stdlib_module_names} <= {"tunesmith"}

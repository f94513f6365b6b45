"""The documentation is true: links lead somewhere, code blocks parse, and nothing names a machine or a registry."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = [
    ROOT / line
    for line in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
]
PAGES = [path for path in TRACKED if path.suffix == ".md" and path.exists()]


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_relative_links_lead_to_files(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_python_blocks_parse(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        ast.parse(block)


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_make_targets_that_a_page_names_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", page.read_text()))
    assert named <= targets


@pytest.mark.parametrize("path", TRACKED, ids=_ids)
def test_no_file_names_a_machine_or_a_registry(path: Path) -> None:
    if not path.exists() or path.suffix in {".safetensors"}:
        pytest.skip("binary or deleted")
    text = path.read_text(errors="replace")
    machine = "/wo" + "rk/"
    registries = ("pypi" + ".org", "registry.npmjs" + ".org", "pythonhosted" + ".org", "deb.debian" + ".org")
    assert machine not in text
    assert [name for name in registries if name in text] == []

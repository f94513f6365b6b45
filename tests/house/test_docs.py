"""The documentation is true: links lead somewhere, code blocks are what they seem, nothing names a machine or a registry.

What Python blocks and commands do is tried by `tests/contract/test_documentation.py`.
"""

import ast
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from docsite import commands
from laws.documented_shell import blocks, lines, words
from tunesmith.core.settings import Settings

ROOT = Path(__file__).parents[2]
TRACKED = [
    ROOT / line
    for line in subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
]
PAGES = [path for path in TRACKED if path.suffix == ".md" and path.exists()]


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", text)


def _places(page: Path) -> set[str]:
    """Return the places of a page as a forge names its headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_relative_links_lead_to_files_and_to_places_in_them(page: Path) -> None:
    for link in _links(page):
        file, _, place = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not place or place in _places(target), link


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_python_json_and_toml_blocks_parse(page: Path) -> None:
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "toml"):
        assert set(tomllib.loads(block)) <= set(Settings.model_fields)


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_the_command_line_takes_every_command_of_a_page(page: Path) -> None:
    for line in lines(page):
        if line.startswith("tunesmith "):
            assert commands.refusal(words(line)[1:]) is None, line


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_what_a_page_sends_by_curl_is_json(page: Path) -> None:
    for line in lines(page):
        if line.startswith("curl "):
            typed = shlex.split(line)
            bodies = [typed[place + 1] for place, word in enumerate(typed) if word in ("-d", "--data")]
            assert all(isinstance(json.loads(body), dict) for body in bodies), line


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

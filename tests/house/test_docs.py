"""The documentation is true: links lead somewhere, code blocks are what they seem, nothing names a machine or a registry.

What Python blocks do is tried by `tests/flow/test_documentation.py`.
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


def _blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, language, text in found if language in languages]


def _lines(page: Path) -> list[str]:
    """Return the commands of a page, each on one line, without what stands before or after a pipe."""
    joined = "\n".join(_blocks(page, "", "sh", "bash", "text")).replace("\\\n", " ")
    return [re.sub(r"^(\w+=\S+ )+", "", line.strip()) for line in joined.splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_relative_links_lead_to_files_and_to_places_in_them(page: Path) -> None:
    for link in _links(page):
        file, _, place = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not place or place in _places(target), link


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_python_json_and_toml_blocks_parse(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(block)
    for block in _blocks(page, "json"):
        json.loads(block)
    for block in _blocks(page, "toml"):
        assert set(tomllib.loads(block)) <= set(Settings.model_fields)


#: What stands for something in a command of the docs, and a word that the command line takes in its place.
_STANDS_FOR = {r"\s#.*$": "", r"\[[^]]*\]": "", r"(\w+)(\|\w+)+": r"\1", "…": "x"}


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_the_command_line_takes_every_command_of_a_page(page: Path) -> None:
    for line in _lines(page):
        if line.startswith("tunesmith "):
            for pattern, word in _STANDS_FOR.items():
                line = re.sub(pattern, word, line)
            words = shlex.split(re.split(r" (?:&&|\||<|>|2>) ", line)[0])
            assert commands.refusal(words[1:]) is None, line


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_what_a_page_sends_by_curl_is_json(page: Path) -> None:
    for line in _lines(page):
        if line.startswith("curl "):
            words = shlex.split(line)
            bodies = [words[place + 1] for place, word in enumerate(words) if word in ("-d", "--data")]
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

"""Files stay small enough to be read in one sitting, and no name says nothing."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for folder in ("src", "tests", "benchmarks", "models", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if ".venv" not in path.parts
)
EMPTY_WORDS = re.compile(r"utils?|helpers?|common|misc|manager|handler|impl|abstract", re.IGNORECASE)
N_MAX_LINES = 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_has_at_most_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= N_MAX_LINES


def test_no_file_or_class_is_named_with_an_empty_word() -> None:
    guilty: list[str] = []
    for path in SOURCES:
        if not path.is_relative_to(ROOT / "src"):
            continue
        if EMPTY_WORDS.fullmatch(path.stem):
            guilty.append(str(path))
        for node in ast.walk(ast.parse(path.read_text())):
            words = re.findall(r"[A-Z][a-z0-9]*", node.name) if isinstance(node, ast.ClassDef) else []
            if any(EMPTY_WORDS.fullmatch(word) for word in words):
                guilty.append(f"{path}: {node.name}")  # type: ignore[union-attr]
    assert guilty == []


def test_except_exception_stands_only_where_a_process_or_a_tick_must_survive() -> None:
    allowed = {
        "worker/run.py",
        "services/scheduler.py",
        "sampler/main.py",
        "sampler/engine.py",
        "notify/trackers/__main__.py",
        "data/render.py",
        "graders/base.py",
        "graders/sandbox/call.py",
        "graders/sandbox/pool.py",
    }
    guilty = {
        str(path.relative_to(ROOT / "src/tunesmith"))
        for path in SOURCES
        if path.is_relative_to(ROOT / "src") and re.search(r"except (Base)?Exception|except:", path.read_text())
    }
    assert guilty <= allowed

"""Sandboxes for tests: with the standard library alone, and with this machine's own numpy in an environment of its own."""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tunesmith.graders.base import Sample
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.layers import Limits
from tunesmith.graders.sandbox.pool import Sandbox

_Answer = TypeVar("_Answer")
LIMITS = Limits(wall_s=3.0, memory_bytes=512 << 20, disk_bytes=64 << 20)


class Box:
    """A sandbox in an event loop of its own."""

    def __init__(self, environment: Environment, **more: Any) -> None:
        self.environment = environment
        self.runner = asyncio.Runner()
        self.sandbox = Sandbox(environment, **{"limits": LIMITS, **more})

    def run(self, question: Coroutine[Any, Any, _Answer]) -> _Answer:
        return self.runner.run(question)

    def check(self, source: str, image_tag: str | None = None) -> None:
        self.run(self.sandbox.check(source, image_tag))

    def grade(self, source: str, text: str = "", **item: Any) -> float:
        return self.run(self.sandbox.grade(source, Sample.of_text(text, item)))

    def patient(self) -> "Box":
        """Return one of the same kind whose calls may take a minute."""
        return Box(self.environment, limits=LIMITS._replace(wall_s=60.0))

    def close(self) -> None:
        self.sandbox.close()
        self.runner.close()


def _given(box: Box) -> Iterator[Box]:
    try:
        found = box.run(box.sandbox.found())
        if found.level == "none":
            pytest.skip(found.way_out)
        yield box
    finally:
        box.close()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a sandbox whose graders have the standard library alone."""
    yield from _given(Box(Environment(tmp_path_factory.mktemp("bare") / "grader-env")))


@pytest.fixture(scope="module")
def with_numpy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """Return a sandbox with numpy."""
    folder = tmp_path_factory.mktemp("numpy") / "grader-env"
    plant_numpy(folder)
    yield from _given(Box(Environment(folder)))


def plant_numpy(folder: Path) -> None:
    """Make an environment that holds a copy of the numpy that the tests themselves have; nothing is downloaded."""
    found = importlib.util.find_spec("numpy")
    if found is None or found.origin is None:
        pytest.skip("there is no numpy to copy")
    python = Environment(folder).python
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(python)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(python).parent}\ninclude-system-site-packages = false\n")
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    source = Path(found.origin).parent
    for package in (source, source.with_name("numpy.libs")):
        if package.exists():
            shutil.copytree(package, site / package.name, copy_function=_link)
    (folder / "tunesmith-graders.json").write_text(json.dumps({"numpy": "0"}))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)

"""The environment of graders' packages: a virtual environment of its own, never the server's site-packages."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from tunesmith.graders.sandbox import packages

#: Where it lies in a data folder.
FOLDER: Final = "grader-env"
_MARK: Final = "tunesmith-graders.json"


class NotInstalled(Exception):
    """The environment could not be made; the text tells why."""


class Command(NamedTuple):
    """How the interpreter of graders is started, and what it was installed with (changes with every install)."""

    words: list[str]
    stamp: object


class Environment:
    """A folder for graders' packages; without an installed one, graders have the standard library alone."""

    def __init__(self, folder: Path, *, python: str | None = None) -> None:
        self.folder = folder
        #: The interpreter that environments are made from, and that runs graders without one.
        self.python = python or _own_interpreter()

    @property
    def installed(self) -> dict[str, str]:
        """Return the versions of what was installed, by name; empty without an environment."""
        try:
            return dict(json.loads((self.folder / _MARK).read_text()))
        except (OSError, ValueError):
            return {}

    def command(self) -> Command:
        """Return how to start the interpreter that runs graders now."""
        try:
            mark = (self.folder / _MARK).stat()
        except OSError:
            return Command([self.python, "-I", "-S"], None)
        return Command([str(self.folder / "bin" / "python"), "-I"], (mark.st_ino, mark.st_mtime_ns))

    def install(self, *, full: bool, tell: Callable[[str], None] = lambda _: None) -> dict[str, str]:
        """Make the environment anew beside the old one, put it in its place, and return what it holds.

        Every package has the version of OpenAI's image where there is a wheel of it for this Python, else the newest that
        there is, else it is left out, and so are corpora that cannot be fetched; `tell` is told each step, and what differs.

        Raises:
            NotInstalled: no environment can be made, or not one package can be had.
        """
        new = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        tell(f"Making {self.folder} with {self.python} ...")
        _run([self.python, "-m", "venv", str(new)])
        wanted = packages.FULL if full else packages.LIGHT
        pip = [str(new / "bin" / "python"), "-m", "pip", "install", "--quiet", "--only-binary", ":all:"]
        pip += ["--no-binary", ",".join(packages.FROM_SOURCE), "--disable-pip-version-check"]
        got = _all_at_once(pip, wanted) or _one_by_one(pip, wanted, tell)
        if not got:
            shutil.rmtree(new, ignore_errors=True)
            raise NotInstalled("no package of the graders' could be installed (is the package index reachable?)")
        if "nltk" in got:
            _fetch_corpora(new, tell)
        (new / _MARK).write_text(json.dumps(got, indent=1))
        old = self.folder.with_name(f"{self.folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(old)
        new.rename(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        return got


def _own_interpreter() -> str:
    """Return the interpreter that this process's own virtual environment was made from."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    base = Path(sys.base_prefix) / "bin" / name
    return str(base) if base.exists() else os.path.realpath(sys.executable)


def _run(words: list[str]) -> None:
    # graders under a server that is root run as another user, who has to read it
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, umask=0o022)
    if done.returncode != 0:
        raise NotInstalled(f"{words[0]} failed: {(done.stderr or done.stdout).strip()[-1000:]}")


def _all_at_once(pip: list[str], wanted: dict[str, str]) -> dict[str, str]:
    try:
        _run([*pip, *_pinned(wanted.items())])
    except NotInstalled:
        return {}
    return dict(wanted)


def _one_by_one(pip: list[str], wanted: dict[str, str], tell: Callable[[str], None]) -> dict[str, str]:
    """Install what can be had, keeping to what is installed already."""
    got: dict[str, str] = {}
    for name, version in wanted.items():
        for text in (f"{name}=={version}", name):
            try:
                _run([*pip, *_pinned(got.items()), text])
            except NotInstalled as error:
                tell(f"  {text}: {str(error).splitlines()[-1]}")
                continue
            got[name] = version if text != name else _version(pip[0], name)
            break
        else:
            tell(f"  {name} is left out.")
    return got


def _fetch_corpora(folder: Path, tell: Callable[[str], None]) -> None:
    """Have nltk fetch its corpora to where graders look for them; they come from its own server, not with the packages."""
    (site,) = folder.glob("lib/python*/site-packages")
    corpora = site / packages.CORPORA_FOLDER
    corpora.mkdir(mode=0o755)
    words = ["-I", "-m", "nltk.downloader", "-q", "-e", "-d", str(corpora), *packages.CORPORA]
    with suppress(NotInstalled):  # it ends well when it fails, too
        _run([str(folder / "bin" / "python"), *words])
    lost = [name for name in packages.CORPORA if not [*corpora.glob(f"*/{name}"), *corpora.glob(f"*/{name}.zip")]]
    if lost:
        names = ", ".join(lost)
        tell(f"  nltk's {names} cannot be fetched. What is put into {packages.CORPORA_FOLDER} beside nltk, it finds.")


def _pinned(versions: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{name}=={version}" for name, version in versions]


def _version(python: str, name: str) -> str:
    program = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    done = subprocess.run([python, "-I", "-c", program, name], capture_output=True, text=True, check=True)
    return done.stdout.strip()

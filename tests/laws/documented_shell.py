"""The shell of the documentation: each page's commands, from its top, by the command line itself and by curl."""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

from typer.testing import CliRunner

from laws.documented import ROOT
from tunesmith.cli.main import app

#: What stands for something in a command of the docs, and a word that the command line takes in its place.
STANDS_FOR = {r"\s#.*$": "", r"\[--[^]]*\]": "", r"(\w+)(\|\w+)+": r"\1", " …": ""}
#: Servers, packages, models and receivers of elsewhere; what has only upper-case words to fill in.
NOT_RUN = re.compile(
    r"serve\b|--install-completion|grader-env|--upstream|--kind|Qwen|ft:qwen|\b(NAME|ALIAS|DELIVERY)\b|webhooks test"
)
MESSAGES = {"messages": [{"role": "user", "content": "What is 1 plus 2?"}, {"role": "assistant", "content": "3"}]}
GRADER = {
    "type": "string_check", "name": "exact", "operation": "eq", "input": "{{ sample.output_text }}", "reference": "3",
}  # fmt: skip
FILES = {
    "train.jsonl": "\n".join(json.dumps(MESSAGES | {"tools": []}) for _ in range(9)) + "\n" + json.dumps(MESSAGES),
    "valid.jsonl": json.dumps(MESSAGES),
    "alpaca.json": '[{"instruction": "a", "output": "b"}]',
    "grader.json": json.dumps(GRADER),
    "rows.jsonl": json.dumps({**MESSAGES, "answers": ["3"]}),
}


def blocks(page: Path, *languages: str) -> list[str]:
    """Return a page's blocks of code of some languages."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, language, text in found if language in languages]


def lines(page: Path) -> list[str]:
    """Return the commands of a page, each on one line, without variables that are set before it."""
    joined = "\n".join(blocks(page, "", "sh", "bash", "text")).replace("\\\n", " ")
    return [re.sub(r"^(\w+=\S+ )+", "", line.strip()) for line in joined.splitlines()]


def words(line: str) -> list[str]:
    """Return a command as it is typed, without examples' marks, pipes and redirections."""
    for pattern, word in STANDS_FOR.items():
        line = re.sub(pattern, word, line)
    return shlex.split(re.split(r" (?:&&|\||<|>|2>) ", line)[0])


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page that can be run anywhere."""
    for line in lines(page):
        if line.startswith(("tunesmith ", "curl ")) and not NOT_RUN.search(line):
            yield line


def tuned() -> list[str]:
    """Return the tuned models that commands steer by their names."""
    typed = "\n".join(line for page in pages() for line in commands(page))
    return sorted(set(re.findall(r"models \w+ (ft:tunesmith-nano\S+)", typed)))


def pages() -> list[Path]:
    """Return the pages that have commands."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run_all(root: str, folder: Path, made: dict[str, Callable[[str], str]]) -> list[str]:
    """Run every page's commands in a folder; return what ran. `made` makes what a pattern stands for, by page."""
    ran: list[str] = []
    for page in pages():
        for line in commands(page):
            for name, text in FILES.items():
                (folder / name).write_text(text)
            typed = re.sub(r"(127\.0\.0\.1|localhost):8000", root.removeprefix("http://"), line.replace(" --watch", ""))
            for pattern, make in made.items():
                typed = re.sub(pattern, partial(_made, make, page.stem), typed)
            _run(words(typed), line)
            ran.append(line)
    return ran


def _made(make: Callable[[str], str], page: str, _: re.Match[str]) -> str:
    return make(page)


def _run(typed: list[str], line: str) -> None:
    for flag, value in pairwise(typed):
        if flag in ("-o", "--output"):
            Path(value).unlink(missing_ok=True)
    if typed[0] == "curl":
        if shutil.which("curl"):
            done = subprocess.run([*typed, "-sS", "--fail-with-body"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return
    told = CliRunner().invoke(app, typed[1:], input="w" * 40 if "wandb" in line else "Hi")
    assert told.exit_code == 0, f"{line}: {told.output}"

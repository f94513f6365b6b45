"""What the site is built from: the repository's pages where they lie, the reference beside them, and the way through them.

`docs/index.md` is the front page and the order of all others: its sections are the parts of the site.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fastapi import FastAPI

from docsite import commands, errors, http, subjects
from tunesmith.services.all import Services

ROOT: Final = Path(__file__).parents[2]
INDEX: Final = ROOT / "docs" / "index.md"
#: The generated pages, in the order of the site.
REFERENCE: Final = ("http/index", "commands", "errors", "states", "rows", "graders", "webhooks", "metrics")
_LINK: Final = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


def reference(app: FastAPI, services: Services) -> dict[str, str]:
    """Return the generated pages by their names, without what they are told beside."""
    return {
        **{f"http/{name}": page for name, page in http.pages(app).items()},
        **subjects.pages(services), "commands": commands.page(), "errors": errors.page(),
    }  # fmt: skip


def links(page: str) -> Iterator[str]:
    """Yield the files that a page leads to, as it writes them; what stands in a block of code is no link."""
    yield from _LINK.findall(re.sub(r"```.*?```", "", page, flags=re.DOTALL))


def parts(index: str) -> dict[str, list[str]]:
    """Return the parts of the site, each with its pages as `docs/index.md` names them, in their order."""
    found: dict[str, list[str]] = {}
    for section in index.split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        found[title.strip()] = list(dict.fromkeys(links(text)))
    return found


def write(into: Path, generated: dict[str, str]) -> None:
    """Write the tree that the site is built from; whatever was there goes."""
    shutil.rmtree(into, ignore_errors=True)
    waiting, done = [INDEX, *sorted((ROOT / "docs").rglob("*.md"))], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in done or not path.is_relative_to(ROOT) or not path.is_file():
            continue
        done.add(path)
        target = into / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix != ".md":
            shutil.copyfile(path, target)
            continue
        page = subjects.with_settings(path.read_text()) if path.name == "settings.md" else path.read_text()
        target.write_text(_LINK.sub(lambda link, at=path.parent: _to_front(link, at), page))
        waiting += [Path(os.path.normpath(path.parent / link)) for link in links(page)]
    for name, page in generated.items():
        target = into / "reference" / f"{name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page)
    (into / "docs" / "index.md").unlink()
    (into / "index.md").write_text(front(INDEX.read_text()))


def _to_front(link: re.Match[str], at: Path) -> str:
    """Return a link of a page that lies in a folder, one to `docs/index.md` as one to the site's front page."""
    leads = Path(os.path.normpath(at / link.group(1))) == INDEX
    return f"]({os.path.relpath(ROOT / 'index.md', at)}" if leads else link.group(0)


def front(index: str) -> str:
    """Return the front page: `docs/index.md` from one folder higher, with the generated pages, and the site's tree."""
    moved = _LINK.sub(lambda link: f"]({os.path.normpath(f'docs/{link.group(1)}')}", index)
    trees: list[str] = []
    for title, pages in parts(moved).items():
        entries = [page.removesuffix(".md") for page in pages if page.endswith(".md")]
        if title == "Reference":
            entries = [*(f"reference/{name}" for name in REFERENCE), *entries]
        trees.append(f"```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(entries) + "\n```\n")
    made = "".join(f"- {{doc}}`reference/{name}`\n" for name in REFERENCE)
    return moved.replace("\n## Reference\n\n", f"\n## Reference\n\n{made}") + "\n" + "\n".join(trees)

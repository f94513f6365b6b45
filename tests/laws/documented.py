"""The Python of the documentation: each page's blocks, run from its top as one program."""

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
QUICKSTART = "docs/quickstart.md"
#: Needs an account of Weights & Biases; `tests/contract/tracking` walks it with a server in its place.
NOT_RUN = {"docs/integrations.md"}


def python(page: Path) -> str:
    """Return a page's Python."""
    found = re.findall(r"^( *)```python\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return "\n".join(re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found)


def pages() -> list[str]:
    """Return the pages that have Python to run, the quickstart first."""
    found = {str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if python(path)}
    return [QUICKSTART, *sorted(found - {QUICKSTART} - NOT_RUN)]


def few_examples(folder: Path) -> None:
    """Put ten rows of every example into a folder, under the names by which the pages open them."""
    for path in (ROOT / "examples").rglob("*.jsonl"):
        few = folder / path.relative_to(ROOT)
        few.parent.mkdir(parents=True, exist_ok=True)
        few.write_text("".join(path.read_text().splitlines(keepends=True)[:10]))


def run(page: str, base_url: str, wait: Callable[[], object], known: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Run a page against a server, with `wait` for its pauses; return its names, and what it printed."""
    source = re.sub(r"http://(127.0.0.1|localhost):8000/v1", base_url, python(ROOT / page))
    names, said = {"__name__": page, "wait": wait, **known}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(source.replace("time.sleep(1)", "wait()"), page, "exec"), names)
    return names, said.getvalue()


def run_all(base_url: str, wait: Callable[[], object]) -> str:
    """Run every page, and return what the quickstart printed; jobs that it leaves unfinished are cancelled."""
    made, said = run(QUICKSTART, base_url, wait, {})
    assert made["job"].status == "succeeded"
    assert made["answer"].choices[0].message.content in said
    with made["client"] as client:
        known = {"client": client, "model": made["job"].fine_tuned_model, "messages": [{"role": "user", "content": "Hello"}]}
        for page in pages()[1:]:
            names, _ = run(page, base_url, wait, known)
            if page == "docs/howto/steer.md":
                assert names["job"].status == "cancelled"
            for job in client.fine_tuning.jobs.list():
                if job.status not in ("succeeded", "failed", "cancelled"):
                    client.fine_tuning.jobs.cancel(job.id)
    return said

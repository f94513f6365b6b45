"""Every failpoint of the source, by its name; one whose name is made at run time stands in a table here."""

import ast
from pathlib import Path
from typing import Final

from tunesmith.core import failpoint

SOURCE: Final = Path(failpoint.__file__).parents[1]
#: What a name that is made at run time can become.
MADE: Final = {
    "f'worker.{task.kind}'": ("worker.train", "worker.validate"),
    "f'executor.rename.{path.stem}'": ("executor.rename.handle", "executor.rename.task"),
}


def in_source(*parts: str) -> set[str]:
    """Return the names in the packages named, or in all.

    Raises:
        KeyError: a name is made at run time and not in the table.
    """
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if parts and path.relative_to(SOURCE).parts[0] not in parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
                (name,) = node.args
                found.update([name.value] if isinstance(name, ast.Constant) else MADE[ast.unparse(name)])
    return found

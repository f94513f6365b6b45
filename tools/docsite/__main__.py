"""Build the site: `python -m docsite OUT`. A link that leads nowhere, or to another machine's script, is an error."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import structlog
from sphinx.cmd.build import build_main

from docsite import tree
from docsite.built import faults
from tunesmith.api.app import create_routes
from tunesmith.bootstrap import compose
from tunesmith.core.settings import Settings


def main(out: Path) -> int:
    """Build into a folder, which is replaced, and return the exit code."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    source = tree.ROOT / "build" / "docs"
    with tempfile.TemporaryDirectory() as folder:
        composed = compose(Settings(data_dir=Path(folder), sampler_warm=False, warm_spares=0))
        try:
            generated = tree.reference(create_routes(composed.services), composed.services)
        finally:
            asyncio.run(composed.close())
    tree.write(source, generated)
    shutil.rmtree(out, ignore_errors=True)
    told = ["-b", "html", "-q", "-W", "--keep-going", "-c", str(Path(__file__).parent), str(source), str(out)]
    if build_main([*told, "-d", str(tree.ROOT / "build" / "docs-cache")]):
        return 1
    found = faults(out)
    for fault in found:
        print(fault, file=sys.stderr)  # noqa: T201 - a command's answer
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

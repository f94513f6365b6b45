"""nltk's corpora: fetched by nltk itself, found by graders in the sandbox, and missed in words where there are none."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tunesmith.graders.sandbox import environment, packages

#: What of nltk is asked: its command that fetches, which ends well in every case, and where it looks.
PACKAGE = "import os\npaths = os.environ.get('NLTK_DATA', '').split(os.pathsep)\n"
DOWNLOADER = """
import pathlib, sys
for name in sys.argv[sys.argv.index("-d") + 2 :]:
    if name in ("stopwords", "punkt"):
        path = pathlib.Path(sys.argv[sys.argv.index("-d") + 1], "corpora", name + ".zip" * (name == "punkt"))
        path.parent.mkdir(exist_ok=True)
        path.write_text("the a of")
"""


@pytest.fixture
def site(bare: Any) -> Path:
    """Return the packages' folder of an environment that has such an nltk."""
    folder: Path = bare.environment.folder
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(bare.environment.python)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(bare.environment.python).parent}\n")
    (folder / "tunesmith-graders.json").write_text("{}")
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "nltk").mkdir(parents=True)
    (site / "nltk" / "__init__.py").write_text(PACKAGE)
    (site / "nltk" / "downloader.py").write_text(DOWNLOADER)
    return site


def test_what_can_be_fetched_is_found_by_graders(bare: Any, site: Path) -> None:
    told: list[str] = []
    environment._fetch_corpora(bare.environment.folder, told.append)
    assert [name for name in packages.CORPORA if name in told[0].replace(",", "").split()] == [
        "punkt_tab", "wordnet", "omw-1.4", "names"
    ]  # fmt: skip
    source = (
        "import nltk, pathlib\ndef grade(sample, item):\n"
        "    return len(pathlib.Path(nltk.paths[0], 'corpora', 'stopwords').read_text().split())"
    )
    assert bare.grade(source) == 3

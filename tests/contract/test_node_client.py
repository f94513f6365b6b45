"""The official client for Node: answers whole and streamed, tool calls, errors; where Node and a folder with it are."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

WALK = Path(__file__).parent / "node_walk.cjs"
#: A folder whose `node_modules` has `openai`.
FOLDER = os.environ.get("TUNESMITH_SDK_NODE", "")


def test_the_client_for_node_walks_through_chat(served: Any) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node here")
    if not (Path(FOLDER) / "node_modules" / "openai").is_dir():
        pytest.skip("no openai for Node here: name the folder of its node_modules in TUNESMITH_SDK_NODE")
    command = [node, str(WALK), str(Path(FOLDER).absolute()), served.base_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("openai ")

"""What is shipped for deployment fits the product: its commands exist, and a stop of the service leaves jobs running."""

import configparser
import json
import re
import shlex
from pathlib import Path

from tunesmith.core.settings import Settings

ROOT = Path(__file__).parents[2]
FLAGS = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}


def unit() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - the keys of a unit have capitals
    parser.read(ROOT / "deploy" / "tunesmith.service")
    return parser["Service"]


def assert_serves(words: list[str]) -> None:
    assert words[1] == "serve"
    assert {word for word in words if word.startswith("--")} <= FLAGS


def test_the_service_ends_the_server_alone() -> None:
    service = unit()
    assert service["KillMode"] == "process"
    assert "PrivateTmp" not in service
    words = shlex.split(service["ExecStart"])
    assert words[0].endswith("/tunesmith")
    assert_serves(words)


def test_the_container_serves_what_the_project_holds() -> None:
    text = (ROOT / "Dockerfile").read_text()
    found = re.search(r"^CMD (.*)$", text, flags=re.MULTILINE)
    assert found is not None
    words = json.loads(found[1])
    assert words[0] == "tunesmith"
    assert_serves(words)
    for line in re.findall(r"^COPY (.*)$", text, flags=re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1]), line

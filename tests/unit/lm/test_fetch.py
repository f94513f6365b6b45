import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tunesmith.lm.fetch import wanted_weights
from tunesmith.lm.inspect import Refused


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["model.safetensors", "consolidated.safetensors", "a/model.safetensors"], ["model.safetensors"]),
        (["model-00002-of-2.safetensors", "model-00001-of-2.safetensors"],
         ["model-00001-of-2.safetensors", "model-00002-of-2.safetensors"]),
        (["weights.safetensors", "pytorch_model.bin"], ["weights.safetensors"]),
    ],
)  # fmt: skip
def test_one_format_of_the_weights_is_fetched(names: list[str], wanted: list[str]) -> None:
    assert wanted_weights("owner/tiny", names) == wanted


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["config.json", "pytorch_model.bin"], r"pickled weights only \(pytorch_model.bin\)"),
        (["config.json", "sub/model.safetensors"], "no .*safetensors file in its top folder"),
    ],
)
def test_a_repository_without_safetensors_is_refused(names: list[str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        wanted_weights("owner/tiny", names)


def test_a_hub_out_of_reach_is_told_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "tunesmith.lm.fetch", "owner/tiny", str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = process.stdout.read()
    assert process.returncode == 1
    assert f"the hub ({endpoint}) cannot be reached" in told
    assert "add its folder" in told


def test_the_process_ends_with_the_one_that_holds_its_standard_input(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent_hub:
        endpoint = f"http://127.0.0.1:{silent_hub.getsockname()[1]}"
        environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "tunesmith.lm.fetch", "owner/tiny", str(tmp_path)]
        with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
            silent_hub.settimeout(60)
            connection, _ = silent_hub.accept()
            assert process.stdin is not None
            process.stdin.close()
            late = threading.Timer(60, process.kill)
            late.start()
            assert process.wait() == 3
            late.cancel()
            connection.close()

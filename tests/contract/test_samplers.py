"""`/tunesmith/v1/samplers`: which bases are in memory, what each is at, and what it does not say."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tokenizers import Tokenizer

import tunesmith
from tunesmith.inference import resident

MODEL = "tunesmith-nano"
NANO = Path(tunesmith.__file__).parent / "bases" / MODEL


def listed(http: httpx2.Client) -> list[dict[str, Any]]:
    answer = http.get("/tunesmith/v1/samplers")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["object"], body["has_more"], body["max_waiting"]) == ("list", False, 9)
    return body["data"]


def becomes(http: httpx2.Client, reached: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 60
    while not reached(seen := listed(http)):
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    return seen


def test_samplers_are_listed_from_their_start_to_their_end(
    open_house: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "sampler.spawn=sleep:1,sampler.step=sleep:0.05")
    monkeypatch.setattr(resident, "_STATUS_S", 0.5)
    with (
        open_house(tmp_path / "data", sampler_queue=9, sampler_idle_s=1.5) as served,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
        openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0, timeout=60) as client,
    ):
        assert listed(http) == []
        said: Any = [{"role": "user", "content": "Count to a hundred"}]
        # none of them ends before the others
        never = {str(Tokenizer.from_file(str(NANO / "tokenizer.json")).token_to_id("<|im_end|>")): -100}
        wishes: dict[str, Any] = {"model": MODEL, "messages": said, "n": 3, "max_tokens": 300, "logit_bias": never}
        asking = threading.Thread(target=lambda: client.chat.completions.create(**wishes))
        asking.start()
        (loading,) = becomes(http, lambda seen: any(each["waiting"] for each in seen))
        assert (loading["base"], loading["status"], loading["rows"], loading["waiting"]) == (MODEL, "loading", 0, 1)
        (busy,) = becomes(http, lambda seen: any(each["rows"] == wishes["n"] for each in seen))
        assert (busy["object"], busy["status"], busy["rows"], busy["waiting"]) == ("tunesmith.sampler", "ready", 3, 0)
        assert busy["adapters"] == []
        assert busy["memory_bytes"] > busy["cache_bytes"] > 0
        assert "python" in Path(f"/proc/{busy['pid']}/cmdline").read_text()
        os.kill(busy["pid"], signal.SIGSTOP)
        assert [(each["status"], each["rows"]) for each in listed(http)] == [("silent", 0)]
        os.kill(busy["pid"], signal.SIGCONT)
        asking.join()
        assert becomes(http, lambda seen: not seen) == [], "unloaded when nobody has used it for a while"
        assert client.chat.completions.create(**{**wishes, "n": 1, "max_tokens": 1}).choices
        assert listed(http)[0]["pid"] != busy["pid"]

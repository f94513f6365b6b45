"""A server that knows each model of another server by another name."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import openai
import pytest

from far import FarServer, far_server
from far.judging import MODELS, Gallery
from far.passing import KNOWN, SECRET


@pytest.fixture(scope="module")
def _other() -> Iterator[FarServer]:
    with far_server() as server:
        server.models = dict(KNOWN)
        yield server


@pytest.fixture(scope="module")
def house(open_house: Callable[..., Any], tmp_path_factory: Any, _other: FarServer, gallery: Gallery) -> Iterator[Any]:
    """A server that knows each model of the other by another name."""
    with (
        open_house(tmp_path_factory.mktemp("house"), image_hosts=gallery.host, judge_timeout_s=2.0) as served,
        httpx2.Client(base_url=served.root, timeout=60, trust_env=False) as http,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("FAR_KEY", SECRET)
        for name in KNOWN:
            there = {"url": _other.url, "model": name, "key_env": "FAR_KEY"}
            added = http.post(MODELS, json={"name": f"my-{name}", "upstream": there})
            assert added.status_code == 200, added.text
        served.composed.services.upstreams._servers._first_pause_s = 0.01  # else most of the tests' time were pauses
        yield served


@pytest.fixture
def other(_other: FarServer) -> FarServer:
    _other.acts.clear()
    _other.asked.clear()
    _other.key = None
    return _other


@pytest.fixture(scope="module")
def chat(house: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=house.base_url, api_key="any", max_retries=0) as client:
        yield client

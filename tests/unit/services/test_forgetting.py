"""Adapters of models that went, told from another thread: vLLM unloads them; a server that is away holds nothing up."""

import asyncio
from pathlib import Path
from typing import Any

from far.vllm import MODEL, vllm_server
from tunesmith.core.clock import SystemClock
from tunesmith.core.settings import Settings
from tunesmith.domain.model import Base, TunedModel, Upstream
from tunesmith.inference.resident import Resident
from tunesmith.inference.upstream import HttpUpstreams
from tunesmith.inference.vllm import VllmServers
from tunesmith.services.forgetting import Forgetting
from tunesmith.services.vllm import Vllm, name_there


def base_at(url: str) -> Base:
    return Base("qwen", "vllm", "", "/x", 1.0, "X", 128, 10, 20, {}, upstream=Upstream(MODEL, url=url))


def test_a_server_unloads_what_went_even_after_one_that_is_away(tmp_path: Path) -> None:
    clock, settings = SystemClock(), Settings(data_dir=tmp_path)
    model = TunedModel("ft:qwen:t::x", "proj_a", "org-a", "ftjob-x", "qwen", 1.0, "jobs/x", "0" * 64, {})
    name = name_there(model.name, model.sha256)

    async def forget(there: Any) -> None:
        servers = HttpUpstreams(clock=clock, first_pause_s=0.0)
        vllm = Vllm(servers, VllmServers(tmp_path, settings=settings, clock=clock), tmp_path, n_most=1)
        forgetting = Forgetting(Resident(tmp_path, settings=settings, clock=clock), vllm)
        gone = [(model, base_at("http://127.0.0.1:9/v1")), (model, None), (model, base_at(there.url))]
        await asyncio.to_thread(forgetting.soon, gone)  # nobody serves yet
        forgetting.begin()
        await asyncio.to_thread(forgetting.soon, gone)
        await asyncio.gather(*forgetting._tasks)
        forgetting.end()

    with vllm_server() as there:
        there.adapters[name] = "/x"
        asyncio.run(forget(there))
        assert there.told == [("unload", name)]

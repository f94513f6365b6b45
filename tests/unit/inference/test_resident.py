"""Sampler processes: asked, killed, replaced, unloaded, and never left behind."""

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.clock import SystemClock
from tunesmith.core.errors import InvalidRequest, Unavailable
from tunesmith.core.settings import Settings
from tunesmith.domain.ports import Adapter, GenerateRequest, Sampled
from tunesmith.inference import keeper
from tunesmith.inference.resident import Resident

pytestmark = pytest.mark.anyio
SLOW = "sampler.step=sleep:0.02"
Keep = Callable[..., Any]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def until(condition: Callable[[], bool], limit_s: float = 60.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


async def status_when(kept: Any, reached: Callable[[Any], bool], limit_s: float = 60.0) -> Any:
    deadline = time.monotonic() + limit_s
    while not reached(status := (await kept.resident.status()).get(kept.base)):
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)
    return status


async def test_answers_many_at_once_from_one_process(shared: Any) -> None:
    alone = await shared.ask([1, 2, 3])
    assert [each.finish for each in alone] == [None, None, None, None, "length"]
    answers = await asyncio.gather(*(shared.ask([1, 2, 3]) for _ in range(10)))
    assert all([each.token for each in answer] == [each.token for each in alone] for answer in answers)
    assert len(await shared.resident.status()) == 1


async def test_the_processes_environment_is_an_allow_list(shared: Any) -> None:
    environment = environment_of((await shared.status())["pid"])
    assert b"TUNESMITH_ROLE=sampler" in environment
    assert b"hush" not in environment


async def test_a_reader_that_leaves_stops_its_generation(shared: Any) -> None:
    n_before = (await shared.status())["steps"]
    request = GenerateRequest([1, 2, 3], max_tokens=120, n=2)
    async with aclosing(shared.resident.stream(shared.base, request)) as stream:
        await anext(stream)
        assert (await shared.status())["rows"] == 2
    assert (await status_when(shared, lambda status: status["rows"] == 0))["steps"] < n_before + 100


async def test_refusals_tell_why(shared: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="do not fit the context of 128 tokens") as refused:
        await shared.ask([1] * 120, max_tokens=100)
    assert refused.value.error_code == "context_length_exceeded"
    with pytest.raises(Unavailable, match="holds no adapter"):
        await shared.ask([1], adapter=Adapter("lost", str(tmp_path / "lost"), "0" * 64))
    await shared.resident.forget("lost")
    assert len(await shared.ask([1, 2, 3])) == 5


async def test_a_killed_sampler_is_one_error_and_a_new_process(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "RESTART_AFTER_S", 0.0)
    expected = await shared.ask([1, 2, 3])
    first = (await shared.status())["pid"]
    answering = asyncio.ensure_future(shared.ask([1, 2, 3], max_tokens=100))
    await status_when(shared, lambda status: status["rows"] > 0)
    os.kill(first, signal.SIGKILL)
    with pytest.raises(Unavailable, match="stopped while it answered"):
        await answering
    assert await shared.ask([1, 2, 3]) == expected
    assert (await shared.status())["pid"] != first
    assert not alive(first)


async def test_a_server_without_descriptors_kills_no_sampler(shared: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = (await shared.status())["pid"]

    async def none_is_left(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "open_unix_connection", none_is_left)
        with pytest.raises(Unavailable, match="cannot be asked now: Too many open files"):
            await shared.ask([1, 2, 3])
    assert len(await shared.ask([1, 2, 3])) == 5
    assert (await shared.status())["pid"] == first


async def test_one_that_dies_idle_is_started_unasked_and_a_caller_that_leaves_meanwhile_spoils_nothing(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "RESTART_AFTER_S", 0.0)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", SLOW)
    first = (await shared.status())["pid"]
    os.kill(first, signal.SIGKILL)
    await until(lambda: not alive(first))
    status = asyncio.ensure_future(status_when(shared, lambda status: status is not None and status["pid"] != first))
    impatient = asyncio.ensure_future(shared.ask([1, 2, 3]))
    await asyncio.sleep(0.1)
    impatient.cancel()
    await asyncio.gather(impatient, return_exceptions=True)
    await status
    assert len(await shared.ask([1, 2, 3])) == 5


def test_an_unused_sampler_is_unloaded_comes_back_and_is_closed_from_any_event_loop(
    tmp_path: Path, base_folder: Callable[[str], Path]
) -> None:
    base = str(base_folder("llama"))
    resident = Resident(tmp_path, settings=Settings(sampler_idle_s=1.0), clock=SystemClock())

    async def ask() -> list[Sampled]:
        request = GenerateRequest([1, 2, 3], max_tokens=5, temperature=0.0)
        return [each async for each in resident.stream(base, request)]

    async def ask_for_pid() -> tuple[list[Sampled], int]:
        return await ask(), (await resident.status())[base]["pid"]

    expected, pid = asyncio.run(ask_for_pid())
    asyncio.run(until(lambda: not alive(pid)))
    assert asyncio.run(resident.status()) == {}
    again, pid = asyncio.run(ask_for_pid())
    assert again == expected
    asyncio.run(resident.close())
    assert not alive(pid)
    with pytest.raises(Unavailable, match="shutting down"):
        asyncio.run(resident.warm(base))


async def test_a_base_that_does_not_load_is_told_with_the_reason(tmp_path: Path, keep: Keep) -> None:
    kept = keep()
    broken = tmp_path / "broken"
    shutil.copytree(kept.base, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    kept.base = str(broken)
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"could not be loaded: .*code 1 \(.*SafetensorError: "):
            await kept.ask([1, 2, 3])
    kept.base = str(tmp_path / "nowhere")
    with pytest.raises(Unavailable, match="nowhere"):
        await kept.ask([1, 2, 3])


async def test_changed_files_are_loaded_anew(tmp_path: Path, keep: Keep, base_folder: Callable[[str], Path]) -> None:
    kept = keep()
    folder = tmp_path / "changing"
    shutil.copytree(kept.base, folder)
    kept.base = str(folder)
    before = await kept.ask([1, 2, 3])
    pid = (await kept.status())["pid"]
    shutil.copytree(base_folder("qwen3"), folder, dirs_exist_ok=True)
    after = await kept.ask([1, 2, 3])
    assert [each.logprob for each in after] != [each.logprob for each in before]
    await until(lambda: not alive(pid))


def test_a_sampler_dies_with_its_server(tmp_path: Path, base_folder: Callable[[str], Path]) -> None:
    program = textwrap.dedent(
        """
        import asyncio, sys, time
        from pathlib import Path
        from tunesmith.core.clock import SystemClock
        from tunesmith.core.settings import Settings
        from tunesmith.inference.resident import Resident

        resident = Resident(Path(sys.argv[1]), settings=Settings(), clock=SystemClock())
        asyncio.run(resident.warm(sys.argv[2]))
        print(asyncio.run(resident.status())[sys.argv[2]]["pid"], flush=True)
        time.sleep(600)
        """
    )
    server = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), str(base_folder("llama"))], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    with server.stdout:
        line = server.stdout.readline()
        while line and not line.strip().isdigit():
            line = server.stdout.readline()
    pid = int(line)
    assert alive(pid)
    server.kill()
    server.wait()
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)

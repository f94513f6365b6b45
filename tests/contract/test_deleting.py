"""Deleting models that are in use: answers under way end as they would have, samplers let go, the job's record stays."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from near import NANO, TUNED, lay_out

SAID: list[Any] = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
async def asked(fresh: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=fresh.base_url, api_key="any", max_retries=0, timeout=120) as client:
        yield client


async def adapters(served: Any) -> list[str]:
    status = await served.composed.inference.status()
    return [name for told in status.values() for name in told["adapters"]]


async def stream(client: openai.AsyncOpenAI, model: str = TUNED) -> Any:
    """Begin an answer of at least a few hundred tokens."""
    long = {"type": "object", "properties": {"x": {"type": "string", "minLength": 1200}}, "required": ["x"]}
    bound: Any = {"type": "json_schema", "json_schema": {"name": "long", "schema": long}}
    return await client.chat.completions.create(
        model=model, messages=SAID, stream=True, seed=4, max_tokens=300, response_format=bound
    )


@pytest.mark.anyio
async def test_an_answer_under_way_ends_as_it_would_have(fresh: Any, asked: openai.AsyncOpenAI) -> None:
    model = lay_out(fresh)
    expected = [chunk.choices[0].delta.content async for chunk in await stream(asked)]
    said: list[Any] = []
    async for chunk in await stream(asked):
        if len(said) == 3:
            assert (await asked.models.delete(TUNED)).deleted
            for _ in range(1000):  # the sampler drops it between two of its steps
                if not await adapters(fresh):
                    break
            [status] = (await fresh.composed.inference.status()).values()
            assert (status["rows"], status["adapters"]) == (1, [])
            with pytest.raises(openai.NotFoundError):
                await asked.chat.completions.create(model=TUNED, messages=SAID)
        said.append(chunk.choices[0].delta.content)
    assert said == expected
    assert len(said) > 100
    assert not (fresh.composed.folder.path / "blobs" / model.adapter_key).exists()
    job = await asked.fine_tuning.jobs.retrieve(model.job_id)
    assert (job.status, job.fine_tuned_model) == ("succeeded", TUNED)
    assert (await asked.fine_tuning.jobs.checkpoints.list(model.job_id)).data == []


@pytest.mark.anyio
async def test_questions_that_race_with_the_delete_are_answered_or_refused(fresh: Any, asked: openai.AsyncOpenAI) -> None:
    lay_out(fresh)

    async def ask() -> int:
        try:
            await asked.chat.completions.create(model=TUNED, messages=SAID, max_tokens=5)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    async def delete() -> int:
        try:
            await asked.models.delete(TUNED)
        except openai.NotFoundError as error:
            return error.status_code
        return 200

    asking = [asyncio.create_task(ask()) for _ in range(12)]
    await asking[0]
    asking += [asyncio.create_task(ask()) for _ in range(12)]
    deleted = await asyncio.gather(*(delete() for _ in range(4)))
    assert sorted(deleted) == [200, 404, 404, 404]
    assert set(await asyncio.gather(*asking)) <= {200, 404, 503}
    assert await ask() == 404
    assert await adapters(fresh) == []


@pytest.mark.anyio
async def test_somebody_elses_model_is_unknown(fresh: Any, asked: openai.AsyncOpenAI) -> None:
    model = lay_out(fresh, project="proj_other")
    with pytest.raises(openai.NotFoundError):
        await asked.models.delete(TUNED)
    assert fresh.composed.services.chat.blobs.keys(model.adapter_key) != []


@pytest.mark.anyio
async def test_a_removed_bases_sampler_ends_with_its_last_answer(
    fresh: Any, asked: openai.AsyncOpenAI, tmp_path: Path
) -> None:
    bases = fresh.composed.services.bases
    folder = shutil.copytree(bases.get(NANO).path, tmp_path / "mine")
    await asyncio.to_thread(bases.add, "mine", str(folder))
    answer = await stream(asked, "mine")
    n_chunks = 0
    async for _ in answer:
        n_chunks += 1
        if n_chunks == 2:
            await asyncio.to_thread(bases.remove, "mine")
    assert n_chunks > 100
    for _ in range(200):
        if await fresh.composed.inference.status() == {}:
            break
        await asyncio.sleep(0.02)
    assert await fresh.composed.inference.status() == {}
    assert folder.is_dir()

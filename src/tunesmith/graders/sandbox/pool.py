"""The sandbox as the server has it: which zygote gets a call, how many run at once, and what to do when one is lost."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final, Literal

import structlog

from tunesmith.core.machine import n_cores
from tunesmith.graders.base import GraderRefused, GradingFailed, Sample
from tunesmith.graders.sandbox import packages, verdict
from tunesmith.graders.sandbox.environment import Environment
from tunesmith.graders.sandbox.layers import Limits
from tunesmith.graders.sandbox.packages import Kind
from tunesmith.graders.sandbox.probe import LEVELS, Found, Level, holds
from tunesmith.graders.sandbox.process import Ended, Lost, Process

log = structlog.get_logger()

N_MAX_JSON_BYTES: Final = 8 << 20
LOAD_S: Final = 10.0
#: What a zygote has when a sample says nothing of it.
_SAMPLE: Final[dict[str, Any]] = {
    "choices": [], "output_text": "", "output_json": None, "output_tools": [], "output_audio": None,
}  # fmt: skip
#: Probes take little; a host on which they do is slow, not open.
_PROBE: Final = Limits(wall_s=20.0)
#: Between a probe without an answer and the next one.
_PAUSES_S: Final = (0.3, 1.0)


class _Zygote:
    """A process and what it was started for."""

    def __init__(self, process: Process, stamp: object) -> None:
        self.process = process
        self.stamp = stamp


class Sandbox:
    """Runs strangers' Python, a confined process a call; the port `PythonRunner`.

    `level` forces a level, which the host must be able to give; without `reduced` that one is not good enough. `n_at_once`
    calls run at the same time. A zygote makes way for a fresh one after `n_calls_each` calls.
    """

    def __init__(
        self,
        environment: Environment,
        *,
        level: Level | None = None,
        reduced: bool = True,
        limits: Limits | None = None,
        n_at_once: int | None = None,
        n_calls_each: int = 5000,
    ) -> None:
        self._environment = environment
        self._levels: tuple[Level, ...] = LEVELS if level is None else (level,)
        self._reduced = reduced
        self._limits = limits or Limits()
        self._n_at_once = n_at_once or n_cores()
        self._n_calls_each = n_calls_each
        self._found: Found | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(self._n_at_once)
        self._starting = asyncio.Lock()
        self._probing: asyncio.Task[None] | None = None
        self._zygotes: dict[Kind, _Zygote] = {}
        self._leaving: list[Process] = []

    async def found(self) -> Found:
        """Return the level that this host gives, probed once."""
        self._be_in_this_loop()
        if self._found is None:
            async with self._starting:
                if self._found is None:
                    self._found = await self._probe()
        return self._found

    def level(self) -> Level | None:
        """Return the level that this host gives; None as long as it is being probed, from now on."""
        self._be_in_this_loop()
        if self._found is None and self._probing is None:
            self._probing = asyncio.create_task(self._look())
        return None if self._found is None else self._found.level

    async def check(self, source: str, image_tag: str | None) -> None:
        """Load the source without calling it; raise `GraderRefused` when it cannot be graded with here."""
        if image_tag not in (None, packages.IMAGE_TAG):
            raise GraderRefused("image_tag", f"There is no image {image_tag!r}; there is {packages.IMAGE_TAG!r}.")
        found = await self.found()
        if found.level == "none":
            raise GraderRefused("", found.way_out)
        limits = self._limits._replace(wall_s=LOAD_S)
        try:
            ended = await self._run("check", source, {}, {}, limits)
            verdict.check(ended, limits)
        except GradingFailed as failure:  # the job itself is too large
            raise GraderRefused("source", failure.details) from failure
        except (Lost, verdict.SetUpFailed, OSError) as error:
            log.warning("sandbox.failed", reason=str(error))
            raise GraderRefused("", f"The sandbox of python graders failed: {error}. Try again.") from error

    async def grade(self, source: str, sample: Sample) -> float:
        """Call the source's `grade(sample, item)` and return its finite number.

        Raises:
            GradingFailed: `python_grader_runtime_error` (the source's fault), `python_grader_server_error` (ours).
        """
        found = await self.found()
        if found.level == "none":
            raise GradingFailed("python_grader_server_error", found.way_out)
        try:
            ended = await self._run("grade", source, {**_SAMPLE, **sample.sample}, sample.item, self._limits)
            return verdict.score_of(ended, self._limits)
        except (Lost, verdict.SetUpFailed, OSError) as error:
            log.warning("sandbox.failed", reason=str(error))
            raise GradingFailed("python_grader_server_error", f"The sandbox failed: {error}") from error

    def close(self) -> None:
        """End every zygote and every call; a later call starts anew."""
        for process in (*self._leaving, *(zygote.process for zygote in self._zygotes.values())):
            process.close()
        self._leaving.clear()
        self._zygotes.clear()
        if self._probing is not None and not self._probing.get_loop().is_closed():
            self._probing.cancel()
        self._probing = None

    @property
    def pids(self) -> list[int]:
        """The processes that the server has started for the zygotes that there are."""
        return [zygote.process.pid for zygote in self._zygotes.values()]

    def _be_in_this_loop(self) -> None:
        """Zygotes are heard in the loop that started them; in another one they are of no use."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.close()
            self._loop = loop
            self._slots = asyncio.Semaphore(self._n_at_once)
            self._starting = asyncio.Lock()

    async def _look(self) -> None:
        found = await self.found()
        log.info("sandbox.found", level=found.level, reasons=list(found.reasons))

    async def _run(
        self,
        action: Literal["check", "grade"],
        source: str,
        sample: Mapping[str, Any],
        item: Mapping[str, Any],
        limits: Limits,
    ) -> Ended:
        """Run a job in a zygote that suits it; a second time when that one was lost with all its calls."""
        job = _job(action, source, sample, item, limits)
        kind = self._kind(source)
        async with self._slots:
            try:
                return await (await self._zygote(kind)).call(job, limits.wall_s)
            except Lost as error:
                log.warning("sandbox.lost", kind=kind, reason=str(error))
            return await (await self._zygote(kind)).call(job, limits.wall_s)

    def _kind(self, source: str) -> Kind:
        kind = packages.kind_for(source)
        has = self._environment.installed
        if kind == "full" and len(has) > len(packages.LIGHT):
            return "full"
        return "numpy" if kind != "light" and "numpy" in has else "light"

    async def _zygote(self, kind: Kind) -> Process:
        """Return a zygote that can be given a call now."""
        command = self._environment.command()
        async with self._starting:
            zygote = self._zygotes.get(kind)
            if zygote is not None and zygote.process.lives:
                if zygote.stamp == command.stamp and zygote.process.n_calls < self._n_calls_each:
                    return zygote.process
                self._leaving.append(zygote.process)
            for process in [process for process in self._leaving if process.idle]:
                process.close()
                self._leaving.remove(process)
            assert self._found is not None
            process = await self._start(kind, self._found.level, self._limits)
            self._zygotes[kind] = _Zygote(process, command.stamp)
            return process

    async def _start(self, kind: Kind, level: Level, limits: Limits) -> Process:
        modules = packages.MODULES[kind]
        process = Process(self._environment.command().words, modules, limits, namespaces=level == "full")
        try:
            await process.ready()
        except BaseException:
            process.close()
            raise
        return process

    async def _probe(self) -> Found:
        """Try the levels from the highest on; return the first that holds."""
        reasons: list[str] = []
        for level in self._levels:
            if level == "none":
                break
            if level == "reduced" and not self._reduced:
                reasons.append("reduced: the setting `sandbox_reduced` is off")
                continue
            reason = await self._try(level)
            if reason is None:
                return Found(level, tuple(reasons))
            reasons.append(f"{level}: {reason}")
        return Found("none", tuple(reasons) or ("it was switched off",))

    async def _try(self, level: Level) -> str | None:
        """Return why a level cannot be had; None when it can. Without an answer it is asked again: what is found stays."""
        for pause in (*_PAUSES_S, None):
            try:
                return await self._answer(level)
            except (GradingFailed, Lost, OSError) as error:
                log.warning("sandbox.no_answer", level=level, reason=str(error))
                if pause is None or isinstance(error, FileNotFoundError):
                    return str(error) or type(error).__name__
                await asyncio.sleep(pause)
        raise AssertionError("the last pause is None")

    async def _answer(self, level: Level) -> str | None:
        process = await self._start("light", level, _PROBE)

        async def run(source: str, item: dict[str, object]) -> float:
            job = _job("grade", source, {"output_text": ""}, item, _PROBE)
            return verdict.score_of(await process.call(job, _PROBE.wall_s), _PROBE)

        try:
            return await holds(run)
        finally:
            process.close()


def _job(
    action: Literal["check", "grade"], source: str, sample: Mapping[str, Any], item: Mapping[str, Any], limits: Limits
) -> bytes:
    """Return the job as JSON.

    Raises:
        GradingFailed: the sample is too large, or it is no JSON.
    """
    given = {"sample": dict(sample), "item": dict(item)}
    try:
        text = json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise GradingFailed("python_grader_runtime_error", f"The sample cannot be given to a grader: {error}") from error
    if len(text) > N_MAX_JSON_BYTES:
        raise GradingFailed(
            "python_grader_runtime_error",
            f"The row and the model's answer are {len(text)} bytes of JSON, and a python grader is given at most "
            f"{N_MAX_JSON_BYTES}.",
        )
    head = json.dumps({"action": action, "source": source, "memory": limits.memory_bytes})
    return f"{head[:-1]},{text[1:]}".encode()

"""The trackers of experiments, each run in a process of its own: a package that hangs or dies takes no one else along."""

import asyncio
import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import structlog

from tunesmith.core.address import HIDDEN, shown
from tunesmith.core.environment import passed_on
from tunesmith.core.failpoint import failpoint
from tunesmith.core.settings import Settings
from tunesmith.domain.recording import NAMES, PACKAGES, End, Row, Run, TrackerFailed, TrackerKind
from tunesmith.notify.trackers.tracker import Place
from tunesmith.supervisor import tree

#: How long a tracker may take: to begin, to take some steps, and to bring everything to its server at the end.
OPEN_S: Final = 60.0
TELL_S: Final = 30.0
END_S: Final = 120.0
_N_LONGEST_ANSWER: Final = 1024 * 1024
_N_LONGEST_WORDS: Final = 300
#: The way out of a company's network, for those that send what they are told.
_WAYS_OUT: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")

log = structlog.get_logger()


class NotInstalled(Exception):
    """A tracker is to be told whose package is not there."""


class TrackerProcesses:
    """The `Trackers` port; runs that are kept here lie in `folder`.

    Raises (when it is made):
        NotInstalled: the settings name a tracker whose package is not there.
    """

    def __init__(self, folder: Path, settings: Settings, *, patience: Mapping[str, float] | None = None) -> None:
        self._folder = folder
        self._scratch = f"tunesmith-tracker-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}-"
        for left in Path(tempfile.gettempdir()).glob(f"{self._scratch}*"):  # by a server that was killed
            shutil.rmtree(left, ignore_errors=True)
        self._patience = {"open": OPEN_S, "tell": TELL_S, "rest": END_S, "end": END_S, **(patience or {})}
        self.offline = settings.wandb_mode == "offline"
        self._places: dict[TrackerKind, Place] = {"wandb": Place(folder=str(folder / "wandb"), offline=self.offline)}
        folders: dict[TrackerKind, Path | None] = {"tensorboard": settings.tensorboard_dir, "trackio": settings.trackio_dir}
        for kind, place in folders.items():
            if place is not None:
                self._places[kind] = Place(folder=str(place.expanduser().absolute()))
        if settings.mlflow_url is not None:
            self._places["mlflow"] = Place(url=settings.mlflow_url)
        self.always: Sequence[TrackerKind] = [kind for kind in self._places if kind != "wandb"]
        for kind in self.always:
            if command := self.missing(kind):
                raise NotInstalled(f"The settings name {NAMES[kind]}, and its package is not installed: {command}.")

    def missing(self, kind: TrackerKind) -> str | None:
        """Return what has to be installed for a tracker; None when nothing has."""
        return None if importlib.util.find_spec(PACKAGES[kind]) else f"pip install 'tunesmith[{kind}]'"

    def place(self, kind: TrackerKind) -> str | None:
        """Return where a tracker is told of jobs, as it may be shown; None where this server does not say so."""
        place = self._places.get(kind)
        if place is None or (kind == "wandb" and not self.offline):
            return None
        return place.folder if place.url is None else shown(place.url)

    async def open(self, run: Run) -> "RunProcess":
        """Begin a run, or go on with it, in a process of its own.

        Raises:
            TrackerFailed: no process could be started, or the tracker cannot be reached, or refuses it.
        """
        scratch = ""
        try:
            scratch = tempfile.mkdtemp(prefix=self._scratch)
            failpoint("trackers.spawn")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tunesmith.notify.trackers", run.kind, str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._environment(), "TMPDIR": scratch},
                start_new_session=True,
                limit=_N_LONGEST_ANSWER,
            )
        except OSError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise TrackerFailed(f"no process could be started: {error}") from error
        opened = RunProcess(process, run, self._patience, scratch)
        async with contextlib.AsyncExitStack() as undone:
            undone.push_async_callback(opened.kill)
            await opened.begin(self._places[run.kind])
            undone.pop_all()
        return opened

    def _environment(self) -> dict[str, str]:
        ways = {name: os.environ[name] for upper in _WAYS_OUT for name in (upper, upper.lower()) if name in os.environ}
        kept = {
            f"WANDB_{what}_DIR": str(self._folder / "wandb" / f".{what.lower()}") for what in ("CACHE", "CONFIG", "DATA")
        }
        # the key comes with the run, and nothing of the package's own is to be told of this server
        return {**passed_on(), **ways, **kept, "WANDB_ERROR_REPORTING": "false", "TUNESMITH_ROLE": "tracker"}


class RunProcess:
    """The `OpenRun` of a process."""

    def __init__(self, process: asyncio.subprocess.Process, run: Run, patience: Mapping[str, float], scratch: str) -> None:
        self._process = process
        self._run = run
        self._patience = patience
        self._scratch = scratch
        self._secrets = [run.secret] if run.secret else []
        self._last_words: deque[str] = deque(maxlen=1)
        self._listener = asyncio.create_task(self._listen())
        self.last_step = -1
        self.url: str | None = None

    async def begin(self, place: Place) -> None:
        """Have the process begin its run."""
        said = urlsplit(place.url or "").password
        self._secrets += [said, unquote(said)] if said else []
        answer = await self._ask("open", run=asdict(self._run), place=asdict(place))
        self.last_step, self.url = int(answer["last_step"]), answer["url"]

    async def tell(self, rows: Sequence[Row]) -> None:
        """Tell steps, in order."""
        await self._ask("tell", rows=[asdict(row) for row in rows])

    async def rest(self) -> None:
        """Tell that the job is paused; the run is closed."""
        await self._ask("rest")
        await self.kill()

    async def end(self, end: End) -> None:
        """Tell how the job ended; the run is closed, and everything is where it belongs."""
        await self._ask("end", end=asdict(end))
        await self.kill()

    async def kill(self) -> None:
        """End the process at once, with what it has started."""
        started = tree.descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        for pid in started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        await self._process.wait()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        # their ends are noticed, and so closed, only where they are read
        _, late = await asyncio.wait([self._listener, asyncio.create_task(self._process.stdout.read())], timeout=1)
        for reader in late:
            reader.cancel()
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def _ask(self, op: str, **said: Any) -> dict[str, Any]:
        """Say something, and return what is answered.

        Raises:
            TrackerFailed: it is answered with an error, or not in time, or the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        within_s = self._patience[op]
        try:
            async with asyncio.timeout(within_s):
                self._process.stdin.write(json.dumps({"op": op, **said}).encode() + b"\n")
                await self._process.stdin.drain()
                answer = json.loads(await self._process.stdout.readline() or b"null")
        except TimeoutError as error:
            raise TrackerFailed(f"{NAMES[self._run.kind]} did not answer within {within_s:g} s") from error
        except (OSError, ValueError) as error:
            raise TrackerFailed(f"its process broke off: {error or type(error).__name__}") from error
        if answer is None:
            await asyncio.wait([self._listener], timeout=1)
            raise TrackerFailed(f"its process ended{''.join(f' ({words})' for words in self._last_words)}")
        if "error" in answer:
            raise TrackerFailed(self._discreet(str(answer["error"])))
        return answer

    async def _listen(self) -> None:
        """Keep the last line of what the process logs: the reason, should it end."""
        assert self._process.stderr is not None
        with contextlib.suppress(ValueError):  # a line without an end
            async for line in self._process.stderr:
                if words := line.decode(errors="replace").strip():
                    self._last_words.append(self._discreet(words))
                    log.debug("tracker.said", job=self._run.job_id, kind=self._run.kind, words=self._last_words[0])

    def _discreet(self, words: str) -> str:
        """Return words without the key and without passwords, on one line that is not long."""
        words = shown(words)
        for secret in self._secrets:
            words = words.replace(secret, HIDDEN)
        return " ".join(words.split())[:_N_LONGEST_WORDS]

# pyright: basic
"""One training in several processes: the worker starts the others, meets them, and ends when one of them does.

The others are children of the worker, carry the attempt's tag, and are killed by the kernel when the worker ends, so that
whatever ends an attempt ends all of it. Where something else started the processes (`torchrun`), `RANK` is set already.
"""

import os
import socket
import subprocess
import sys
import threading
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist

from tunesmith.core.channel import Task
from tunesmith.core.environment import ATTEMPT_TAG, JOB_TAG
from tunesmith.domain.tasks import TrainSpec
from tunesmith.engine.ranks import ALONE, Ranks
from tunesmith.worker.further import PARENT

#: How the worker ends when another process has.
LOST_RANK: Final = 70
#: Processes wait for each other as long as it takes: one that is gone is noticed otherwise.
_PATIENCE: Final = timedelta(days=30)


def meet(task: Task, spec: TrainSpec) -> Ranks:
    """Return this process's place among those of the training, once all of them are there."""
    if spec.processes == 1 and "RANK" not in os.environ:
        return ALONE
    if "RANK" not in os.environ:
        _start_others(task, spec.processes)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, rank=rank, world_size=size, timeout=_PATIENCE)
    return Ranks(rank, size, spread=spec.spread and size > 1)


def _start_others(task: Task, size: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    os.environ.update(own | {"RANK": "0", "LOCAL_RANK": "0"})
    others: list[subprocess.Popen[bytes]] = []
    for rank in range(1, size):
        environment = {
            **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), PARENT: str(os.getpid()),
            JOB_TAG: task.job, ATTEMPT_TAG: str(task.attempt),
        }  # fmt: skip
        command = [sys.executable, "-m", "tunesmith.worker.run", f"{task.folder}/task.json"]
        others.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
    for process in others:
        threading.Thread(target=_watch, args=(process,), daemon=True).start()


def _watch(process: subprocess.Popen[bytes]) -> None:
    """End the worker when another process failed: the others would wait for it for ever."""
    code = process.wait()
    if code:
        print(f"another process of this training ended with {code}", file=sys.stderr, flush=True)  # noqa: T201 - the log
        os._exit(LOST_RANK)

"""A real terminal for the command line: each command is a fork of a process that has imported everything before.

What a person sees and types goes through a pseudo-terminal, with Ctrl-C and Ctrl-D as a keyboard sends them.
"""

import fcntl
import gc
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

CTRL_C, CTRL_D = "\x03", "\x04"
#: What colours and moves the cursor.
_MOVES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")
_PATIENCE_S = 30.0


class Terminal:
    """A terminal in which one command runs."""

    def __init__(self, channel: socket.socket, words: list[str], cwd: Path, env: dict[str, str], columns: int) -> None:
        self._channel = channel
        channel.send(json.dumps({"words": words, "cwd": str(cwd), "env": env, "columns": columns}).encode())
        pid, fds, _, _ = socket.recv_fds(channel, 64, 1)
        self._pid, self._fd = int(pid), fds[0]
        self._came = b""
        self._n_seen = 0

    @property
    def raw(self) -> str:
        """Everything that was written, with what colours it."""
        return self._came.decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything that was written, as it is read."""
        return _MOVES.sub("", self.raw).replace("\r\n", "\n")

    def until(self, mark: str) -> str:
        """Return what came since the last mark, up to and with this one."""
        end = time.monotonic() + _PATIENCE_S
        while (at := self.text.find(mark, self._n_seen)) < 0:
            assert self._read(end - time.monotonic()), f"no '{mark}' after: {self.text[self._n_seen :]}"
        start, self._n_seen = self._n_seen, at + len(mark)
        return self.text[start : self._n_seen]

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._fd, text.encode())

    def end(self) -> tuple[int, str]:
        """Wait for the command's end; return its exit code and all that it wrote."""
        end = time.monotonic() + _PATIENCE_S
        while self._read(end - time.monotonic()):
            pass
        os.close(self._fd)
        self._channel.send(json.dumps({"pid": self._pid}).encode())
        return int(self._channel.recv(64)), self.text

    def _read(self, patience_s: float) -> bool:
        if not select.select([self._fd], [], [], max(0, patience_s))[0]:
            os.kill(self._pid, signal.SIGKILL)
            return False
        try:
            piece = os.read(self._fd, 65536)
        except OSError:  # how Linux tells that the other side is closed
            return False
        self._came += piece
        return bool(piece)


class Terminals:
    """Opens terminals."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def open(self, *words: object, cwd: Path, env: dict[str, str] | None = None, columns: int = 120) -> Terminal:
        """Run a command in a terminal."""
        return Terminal(self._channel, [str(word) for word in words], cwd, env or {}, columns)


@contextmanager
def terminals() -> Iterator[Terminals]:
    """Yield what opens terminals."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TUNESMITH_", "OPENAI_"))}
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=env) as process:
            try:
                yield Terminals(ours)
            finally:
                ours.send(b"{}")
                process.wait(_PATIENCE_S)


def _fork_for_each(channel: socket.socket) -> None:
    import readline  # noqa: F401  # pyright: ignore[reportUnusedImport]

    import httpx2  # noqa: F401  # pyright: ignore[reportUnusedImport]

    import tunesmith.bootstrap
    import tunesmith.cli.checking
    import tunesmith.cli.doctor
    import tunesmith.cli.grading
    import tunesmith.cli.main
    import tunesmith.cli.reshaping
    import tunesmith.cli.talk  # noqa: F401  # pyright: ignore[reportUnusedImport]

    gc.freeze()
    running: set[int] = set()
    while asked := json.loads(channel.recv(65536)):
        if "pid" in asked:
            running.remove(asked["pid"])
            _, status = os.waitpid(asked["pid"], 0)
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid, fd = pty.fork()
        if pid == 0:
            channel.close()
            _run(asked)
        running.add(pid)
        socket.send_fds(channel, [str(pid).encode()], [fd])
        os.close(fd)
    for pid in running:  # of tests that failed
        os.kill(pid, signal.SIGKILL)


def _run(asked: dict[str, Any]) -> NoReturn:
    from tunesmith.cli.main import main

    code: object = 70
    try:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, asked["columns"], 0, 0))
        os.chdir(asked["cwd"])
        os.environ.update({"TERM": "xterm", **asked["env"]})
        sys.argv = ["tunesmith", *asked["words"]]
        sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115 - the terminal, not what was there before
        sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - a traceback in a terminal is what the test is to see
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(code if isinstance(code, int) else int(bool(code)))


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _fork_for_each(given)

"""Another project's server on a leash: said to be ready when it is healthy, and ended, with all its processes, when our end
of the standard input is closed, as it is when we end.

`python -m tunesmith.supervisor.leash URL SCRATCH COMMAND…`: URL is asked for its health until it answers 200, then `ready`
is printed. What the server prints goes to the standard error, its temporary files into SCRATCH, removed at the end.
"""

import http.client
import os
import select
import shutil
import signal
import sys
from typing import Final
from urllib.parse import urlsplit

from tunesmith.supervisor import tree

#: How often the server is looked at, and how long one that is asked for its health may take.
_LOOK_S: Final = 0.2
_HEALTH_S: Final = 2.0
_OK: Final = 200


def main() -> int:
    """Start the server and stay until it ends, or until nobody holds our input; return its exit code."""
    url, scratch, *command = sys.argv[1:]
    tree.adopt_orphans()
    os.makedirs(scratch, exist_ok=True)  # noqa: PTH103 - as in tree.py
    server = _start(command, scratch)
    ready, code = False, None
    while code is None:
        if select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 1):
            break
        code = _ended(server)
        if code is None and not ready and _healthy(url):
            ready = True
            print("ready", flush=True)  # noqa: T201 - the parent waits for this line
            os.dup2(2, 1)
    tree.kill_descendants()
    shutil.rmtree(scratch, ignore_errors=True)
    return 0 if code is None else code


def _start(command: list[str], scratch: str) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            tree.die_with_parent(parent)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            # what our interpreter is told to load is nothing for another one
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
            os.execve(command[0], command, {**environment, "TMPDIR": scratch})
        except OSError as error:
            os.write(2, f"{command[0]} does not start: {error}\n".encode())
        finally:
            os._exit(127)
    return pid


def _ended(server: int) -> int | None:
    """Reap whoever has ended, and return the server's exit code if it was among them."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == server:
                return os.waitstatus_to_exitcode(ended[1]) % 256
    except ChildProcessError:
        return 127
    return None


def _healthy(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=_HEALTH_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == _OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(main())

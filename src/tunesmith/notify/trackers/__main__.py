"""The process of one run: a JSON object a line comes in, is told to the tracker, and is answered by one.

`open` is answered by `{"last_step": …, "url": …}`, `tell`, `rest` and `end` by `{}`, and what goes wrong by `{"error": …}`.
"""

import importlib
import json
import os
import sys
from typing import Any, TextIO

from tunesmith.domain.recording import End, Row, Run
from tunesmith.notify.trackers.tracker import Place, Tracker
from tunesmith.supervisor.child import stand_back
from tunesmith.supervisor.tree import die_with_parent


def main(kind: str, parent: int) -> None:
    """Serve until the other side closes the pipe."""
    die_with_parent(parent)
    stand_back()  # a package takes seconds to import, which a training or an answer may be in need of
    sys.modules["torch"] = None  # type: ignore[assignment] - no tracker needs it, and one that looks for it waits for seconds
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a package prints is no answer
        _serve(kind, answers)


def _serve(kind: str, answers: TextIO) -> None:
    tracker: Tracker | None = None
    for line in sys.stdin:
        message: dict[str, Any] = json.loads(line)
        answer: dict[str, Any] = {}
        try:
            match message["op"]:
                case "open":
                    module = importlib.import_module(f"tunesmith.notify.trackers.{kind}")
                    begun: Tracker = module.begin(Run(**message["run"]), Place(**message["place"]))
                    tracker, answer = begun, {"last_step": begun.last_step, "url": begun.url}
                case "tell" if tracker is not None:
                    for row in message["rows"]:
                        tracker.tell(Row(**row))
                case "rest" if tracker is not None:
                    tracker.rest()
                case "end" if tracker is not None:
                    tracker.end(End(**message["end"]))
                case unknown:
                    raise ValueError(f"there is no operation {unknown!r} now")
        except BaseException as error:  # noqa: BLE001 - a package may raise, or exit, as it likes: it is told where it is acted on
            answer = {"error": f"{error or type(error).__name__}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
    os._exit(0)  # no package's last words at the exit are waited for

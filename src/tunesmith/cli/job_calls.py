"""Jobs as the verbs of `tunesmith jobs` ask for them: found by a piece of their id, read over pages, with their metrics."""

import base64
import binascii
import contextlib
import csv
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from tunesmith.cli.client import ABSENT, Client, Refused, Unreachable, fail, segment

JOBS: Final = "/v1/fine_tuning/jobs"
DETAILS: Final = "/tunesmith/v1/fine_tuning/jobs"
ENDED: Final = ("succeeded", "failed", "cancelled")
N_PAGE: Final = 100
#: Among how many jobs one is looked for by a piece of its id.
N_SEARCHED: Final = 1000


def at(job_id: str, more: str = "", *, prefix: str = JOBS) -> str:
    """Return a job's path."""
    return f"{prefix}/{segment(job_id)}{more}"


def find(client: Client, said: str) -> dict[str, Any]:
    """Return the job of an id, or of the beginning or end of one; none or several end the command with one line."""
    try:
        return client.request("GET", at(said))
    except Unreachable as error:
        fail(str(error), error.code)
    except Refused as error:
        if error.status not in ABSENT:
            fail(str(error), error=error.error)
        refusal = error
    found: list[dict[str, Any]] = []
    for number, job in enumerate(pages(client, JOBS)):
        if job["id"].startswith((said, f"ftjob-{said}")) or job["id"].endswith(said):
            found.append(job)
        if number >= N_SEARCHED or len(found) > 2:
            break
    if not found:
        fail(str(refusal), error=refusal.error)
    if len(found) > 1:
        fail(f"'{said}' is the beginning or end of several ids: {', '.join(job['id'] for job in found)}; say more of it.")
    return found[0]


def pages(client: Client, path: str) -> Iterator[dict[str, Any]]:
    """Yield all of a list, page by page; the path may have a query."""
    after, has_more = "", True
    while has_more:
        page = client.call("GET", f"{path}{'&' if '?' in path else '?'}limit={N_PAGE}{after}")
        yield from page["data"]
        has_more = bool(page["has_more"]) and bool(page["data"])
        after = f"&after={quote(page['data'][-1]['id'], safe='')}" if page["data"] else ""


def kind(job: dict[str, Any]) -> str:
    """Return a job's method; jobs from before there were others have none."""
    return str((job.get("method") or {}).get("type") or "supervised")


def knobs(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job's hyperparameters as it shows them."""
    block = (job.get("method") or {}).get(kind(job)) or {}
    return block.get("hyperparameters") or job.get("hyperparameters") or {}


def curves(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """Return a job's metrics, `columns` and `rows`, as the server tells them, or from its result file or its events."""
    told = client.extra("GET", at(job["id"], "/metrics?points=2000", prefix=DETAILS))
    if told is not None:
        return told
    if job.get("result_files"):
        return from_csv(result(client, job))
    rows: dict[int, dict[str, float]] = {}
    for event in pages(client, at(job["id"], "/events")):
        data = event.get("data") or {}
        if event.get("type") == "metrics" and isinstance(data.get("step"), int):
            rows[data["step"]] = {name: value for name, value in data.items() if isinstance(value, int | float)}
    return _by_step(rows)


def from_csv(text: str) -> dict[str, Any]:
    """Return the metrics of a result file."""
    rows: dict[int, dict[str, float]] = {}
    for line in csv.DictReader(text.splitlines()):
        rows[int(line["step"])] = {name: float(cell) for name, cell in line.items() if cell}
    return _by_step(rows)


def _by_step(rows: dict[int, dict[str, float]]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows.values() for name in row if name not in ("step", "total_steps"))
    lines = [[step, *(row.get(name) for name in names)] for step, row in sorted(rows.items())]
    return {"object": "tunesmith.metrics", "columns": ["step", *names], "rows": lines, "n_steps": len(lines)}


def result(client: Client, job: dict[str, Any]) -> str:
    """Return a job's result file; one without ends the command with one line."""
    if not job.get("result_files"):
        way = "it is written when the job succeeds" if job["status"] not in ENDED else "`tunesmith jobs logs` tells why"
        fail(f"{job['id']} has no result file: it is {job['status']}, and {way}.")
    with client.download(f"/v1/files/{segment(job['result_files'][0])}/content") as response:
        content = response.read()
    if not content.startswith(b"step"):  # OpenAI's own come in base64
        with contextlib.suppress(binascii.Error):
            content = base64.b64decode(content, validate=True)
    return content.decode("utf-8-sig", errors="replace")

"""`tunesmith doctor`: settings with their source, the machine, versions, the server; then what is wrong and the way out."""

import asyncio
import importlib.metadata
import importlib.resources
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import typer

from tunesmith.cli.client import REFUSED, own_key
from tunesmith.cli.flags import explain
from tunesmith.cli.output import print_json
from tunesmith.cli.tracking import not_installed, trackers
from tunesmith.core.address import is_loopback
from tunesmith.core.machine import free_disk_bytes, gpus, memory_bytes, n_cores, readable_bytes
from tunesmith.core.settings import Settings
from tunesmith.graders.sandbox.environment import FOLDER, Environment
from tunesmith.graders.sandbox.pool import Sandbox

PACKAGES: Final = ("torch", "transformers", "peft", "tokenizers", "fastapi", "sqlalchemy", "openai")
#: OpenTelemetry's own names for where traces go.
TRACES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
N_MIN_FREE_BYTES: Final = 2 * 10**9
N_MIN_MEMORY_BYTES: Final = 3 * 10**9


def examine(settings: Settings, flags: dict[str, Any], *, as_json: bool = False) -> int:
    """Print everything; return 0 when nothing is wrong, else 1."""
    answer, bases, spares = _server(settings)
    problems = list(_problems(settings, bases))
    told: dict[str, Any] = {
        "settings": {each.name: {"value": each.value, "source": each.source} for each in explain(settings, flags)},
        "machine": dict(_machine(settings)),
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) or "not installed" for package in ("tunesmith", *PACKAGES)},
        },
        "server": {_root(settings): answer, **({} if spares is None else {"spares": spares})},
        "sight": dict(_sight(settings)),
        "trackers": dict(trackers(settings, _root(settings))),
        "graders": dict(_graders(settings)),
        "problems": problems,
    }
    if as_json:
        print_json(told)
    else:
        _show(told)
    return REFUSED if problems else 0


def _show(told: dict[str, Any]) -> None:
    for chapter in ("settings", "machine", "versions", "server", "sight", "trackers", "graders"):
        typer.echo(chapter.capitalize())
        for name, value in told[chapter].items():
            said = f"{value['value']:<28} {value['source']}" if chapter == "settings" else value
            typer.echo(f"  {name:<20} {said}")
    typer.echo("Problems" if told["problems"] else "No problems found.")
    for problem in told["problems"]:
        typer.echo(f"  - {problem}")


def _machine(settings: Settings) -> Iterator[tuple[str, str]]:
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    yield "cores", str(n_cores())
    yield "memory", readable_bytes(memory_bytes())
    yield "free disk", f"{readable_bytes(free_disk_bytes(settings.data_dir.absolute()))} at {settings.data_dir.absolute()}"
    found = gpus()
    yield "gpus", ", ".join(f"{gpu.name} ({readable_bytes(gpu.memory_bytes)})" for gpu in found) or "none"


def _sight(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield where figures, logs and traces of a server with these settings go."""
    yield "figures", f"{_root(settings)}/metrics, for {'everybody' if settings.metrics_public else 'admins'}"
    yield "log", f"standard error, level {settings.log_level}, form {settings.log_format}"
    collector = next((os.environ[name] for name in TRACES if os.environ.get(name)), None)
    there = _version("opentelemetry-exporter-otlp-proto-http") is not None
    sent = f"to {collector}" + ("" if there else ", once tunesmith[otel] is installed")
    yield "traces", sent if collector else f"none ({TRACES[0]} names a collector)"


def _graders(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the sandbox that this host gives to python graders, and the packages that they may import."""
    environment = Environment(settings.data_dir.expanduser().absolute() / FOLDER)
    sandbox = Sandbox(environment, reduced=settings.sandbox_reduced)
    try:
        found = asyncio.run(sandbox.found())
    finally:
        sandbox.close()
    yield "sandbox", found.level + (f" ({'; '.join(found.reasons)})" if found.reasons else "")
    installed = ", ".join(f"{name} {version}" for name, version in environment.installed.items())
    yield "packages", installed or "the standard library alone (`tunesmith grader-env install` adds numpy and rapidfuzz)"


def _server(settings: Settings) -> tuple[str, list[str] | None, str | None]:
    """Ask a server at the settings' address; return its answer, its bases' names and its spares (None without an answer)."""
    try:
        with httpx2.Client(base_url=_root(settings), headers=own_key(), timeout=5.0, trust_env=False) as client:
            ready = client.get("/readyz")
            if ready.status_code != 200:
                return f"answers, but is not ready ({ready.status_code})", None, None
            known = client.get("/tunesmith/v1/models")
            if known.status_code == 401:
                return "is ready; what it serves it tells with a key: set TUNESMITH_API_KEY", None, None
            bases: list[dict[str, Any]] = known.json()["data"]
            held = client.get("/tunesmith/v1/spares")
            spares = "(told with an admin key)" if held.status_code == 403 else _spares(held.json())
    except httpx2.HTTPError:
        return "does not answer: not running, or on another port (`tunesmith serve` starts it)", None, None
    except (ValueError, KeyError):
        return "answers, but is not a Tunesmith server", None, None
    names, upstream = (
        [name for base in bases if (base["kind"] == "upstream") is there for name in (base["name"], *base["aliases"])]
        for there in (False, True)
    )
    told = f"is ready; base models: {', '.join(names) or 'none'}"
    return told + (f"; models upstream: {', '.join(upstream)}" if upstream else ""), names, spares


def _spares(answer: dict[str, Any]) -> str:
    """Return what waits for the next job, and the memory that it holds."""
    waiting = ", ".join(f"{spare['kind']} ({spare['status']})" for spare in answer["data"])
    return f"{waiting or 'none'}; {readable_bytes(answer['memory_bytes'])} of at most {readable_bytes(answer['max_bytes'])}"


def _problems(settings: Settings, bases: list[str] | None) -> Iterator[str]:
    yield from _data_folder(settings.data_dir.absolute())
    if settings.auth == "off" and not is_loopback(settings.host):
        yield f"auth is off and host is {settings.host}: no address but loopback is served without keys. Leave auth out."
    if memory_bytes() < N_MIN_MEMORY_BYTES:
        yield f"{readable_bytes(memory_bytes())} of memory: training needs {readable_bytes(N_MIN_MEMORY_BYTES)} or more."
    if settings.training_slots > n_cores() and not gpus():
        yield f"training_slots is {settings.training_slots} on {n_cores()} cores: jobs will wait for one another's core."
    embedded = Path(str(importlib.resources.files("tunesmith"))) / "bases" / "tunesmith-nano" / "config.json"
    if not embedded.is_file():
        yield f"the embedded base model is not in {embedded.parent}: install Tunesmith again."
    if settings.default_base and bases is not None and settings.default_base not in bases:
        yield f"default_base is {settings.default_base}, which is no base model of the server: {', '.join(bases)}."
    yield from not_installed(settings)
    torch = _version("torch")
    if torch is None:
        yield "torch is not installed, so nothing can be trained: install Tunesmith again."
    elif torch.endswith("+cpu") and gpus():
        yield f"torch {torch} cannot use this machine's GPU: install torch {torch.removesuffix('+cpu')} for CUDA."
    if sys.platform != "linux":
        yield f"on {platform.system()} jobs are ended by process group only; Linux alone has the full guarantee of cancel."


def _data_folder(folder: Path) -> Iterator[str]:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield f"data_dir {folder} cannot be written: choose another with --data-dir or TUNESMITH_DATA_DIR."
    elif free_disk_bytes(folder) < N_MIN_FREE_BYTES:
        yield f"{folder} has {readable_bytes(free_disk_bytes(folder))} free: files and checkpoints need more."


def _root(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

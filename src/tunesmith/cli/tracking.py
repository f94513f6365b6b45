"""What the doctor tells of trackers of experiments: which are installed, which the settings name, whether there is a key."""

import importlib.util
from collections.abc import Iterator

import httpx2

from tunesmith.cli.client import own_key
from tunesmith.core.address import shown
from tunesmith.core.settings import Settings
from tunesmith.domain.recording import NAMES, PACKAGES, SETTINGS, TrackerKind


def trackers(settings: Settings, root: str) -> Iterator[tuple[str, str]]:
    """Yield every tracker with how it stands here; `root` is the server that knows of a key."""
    yield "wandb", _wandb(settings, root)
    for kind, place in _named(settings).items():
        if place is None:
            yield kind, f"not told ({SETTINGS[kind]} names where to); {'installed' if _there(kind) else 'not installed'}"
        else:
            yield kind, f"told of every job, at {place}" if _there(kind) else f"not installed: {_way_out(kind)}"


def not_installed(settings: Settings) -> Iterator[str]:
    """Yield what keeps a server of these settings from its start."""
    for kind, place in _named(settings).items():
        if place is not None and not _there(kind):
            yield f"{SETTINGS[kind]} names {NAMES[kind]}, whose package is not installed: {_way_out(kind)}."


def _named(settings: Settings) -> dict[TrackerKind, str | None]:
    """Return where each tracker that is told of every job is, as it may be shown."""
    places = {"tensorboard": settings.tensorboard_dir, "mlflow": settings.mlflow_url, "trackio": settings.trackio_dir}
    return {kind: None if places[kind] is None else shown(str(places[kind])) for kind in NAMES if kind in places}


def _wandb(settings: Settings, root: str) -> str:
    if not _there("wandb"):
        return f"not installed: {_way_out('wandb')}"
    if settings.wandb_mode == "offline":
        return f"installed; runs that jobs ask for are kept in {settings.data_dir / 'wandb'}"
    return f"installed; {_key(root)}"


def _key(root: str) -> str:
    try:
        with httpx2.Client(base_url=root, headers=own_key(), timeout=5.0, trust_env=False) as client:
            answer = client.get("/tunesmith/v1/integrations")
        if answer.status_code in (401, 403):
            return "whether there is a key is told with an admin key"
        known = {each["id"]: each["base_url"] for each in answer.json()["data"]}
    except (httpx2.HTTPError, ValueError, KeyError):
        return "the server knows whether there is a key, and does not answer"
    if "wandb" not in known:
        return "no key is registered (`tunesmith integrations wandb`)"
    return f"a key is registered, for {known['wandb'] or 'wandb.ai'}"


def _there(kind: TrackerKind) -> bool:
    return importlib.util.find_spec(PACKAGES[kind]) is not None


def _way_out(kind: TrackerKind) -> str:
    return f"pip install 'tunesmith[{kind}]'"

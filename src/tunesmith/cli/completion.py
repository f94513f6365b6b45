"""What a shell offers where an id is asked for: the running server's own, and nothing, silently, where no server answers."""

from typing import Any, Final

import typer

from tunesmith.cli.client import DEFAULT_BASE_URL, Client, Refused, Unreachable

#: A shell that waits for a server is a shell that hangs.
PATIENCE_S: Final = 0.7
N_OFFERED: Final = 100


def complete_jobs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer job ids, newest first, with their state and model."""
    found = _listed(ctx, f"/v1/fine_tuning/jobs?limit={N_OFFERED}")
    return _starting(
        [(job["id"], f"{job['status']}, {job['fine_tuned_model'] or job['model']}") for job in found], incomplete
    )


def complete_files(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer file ids, newest first, with their names."""
    found = _listed(ctx, f"/v1/files?limit={N_OFFERED}")
    return _starting([(file["id"], f"{file['filename']}, {file['purpose']}") for file in found], incomplete)


def complete_models(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer what the server answers for, by name."""
    return _starting([(model["id"], str(model["owned_by"])) for model in _listed(ctx, "/v1/models")], incomplete)


def _starting(offers: list[tuple[str, str]], incomplete: str) -> list[tuple[str, str]]:
    return [offer for offer in offers if offer[0].startswith(incomplete)]


def _listed(ctx: typer.Context, path: str) -> list[dict[str, Any]]:
    base_url = ctx.params.get("base_url") or DEFAULT_BASE_URL
    try:
        with Client(base_url, timeout_s=PATIENCE_S, connect_s=PATIENCE_S) as client:
            return client.request("GET", path)["data"]
    except (Refused, Unreachable, KeyError):
        return []

"""The pages, a file each; `add` gives them their paths."""

from tunesmith.dashboard.house import House
from tunesmith.dashboard.pages import (
    audit,
    create,
    files,
    graders,
    job,
    jobs,
    keys,
    login,
    models,
    playground,
    projects,
    raw,
    server,
    storage,
    trackers,
    webhooks,
)


def add(house: House) -> None:
    """Give every page its path."""
    work = (login, jobs, job, create, models, playground, files, graders, webhooks, server, raw)
    for page in (*work, projects, keys, trackers, storage, audit):
        page.add(house)

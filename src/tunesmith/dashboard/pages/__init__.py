"""The pages, a file each; `add` gives them their paths."""

from tunesmith.dashboard.house import House
from tunesmith.dashboard.pages import admin, create, files, graders, job, jobs, login, models, playground, raw


def add(house: House) -> None:
    """Give every page its path."""
    for page in (login, jobs, job, create, models, playground, files, graders, admin, raw):
        page.add(house)

"""Whether a built site is whole: every link inside it leads to a page and a place on it, and it needs no other machine."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag, urlparse

#: Tags whose addresses a browser fetches by itself.
_FETCHED: Final = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
#: Kinds of `link` that a browser does not fetch.
_NAMED: Final = {"canonical", "next", "prev", "search", "index"}


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.leads: list[str] = []
        self.fetches: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the place that a tag is, and where it leads."""
        told = {name: value or "" for name, value in attrs}
        self.places |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.leads.append(told["href"])
        if told.get(_FETCHED.get(tag, "")) and told.get("rel") not in _NAMED:
            self.fetches.append(told[_FETCHED[tag]])


def faults(site: Path) -> list[str]:
    """Return what is wrong with a site, one line each."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    return [f"{path.relative_to(site)}: {fault}" for path, page in pages.items() for fault in _of(path, page, pages)]


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def _of(path: Path, page: _Page, pages: dict[Path, _Page]) -> Iterator[str]:
    for address in page.fetches:
        if urlparse(address).netloc:
            yield f"fetches {address}"
    for address in page.leads:
        if urlparse(address).scheme or urlparse(address).netloc:
            continue
        file, place = urldefrag(address)
        target = (path.parent / unquote(file)).resolve() if file else path.resolve()
        found = {each.resolve(): one for each, one in pages.items()}.get(target)
        if not target.exists():
            yield f"leads to {address}, which is not there"
        elif place and found is not None and unquote(place) not in found.places:
            yield f"leads to {address}, a place that is not there"

"""What all pages stand in: who is logged in, the frame around a page, and how a refusal is told."""

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from nicegui import app, ui
from nicegui.element import Element

from tunesmith.dashboard.api import Answers, Api, Refused
from tunesmith.dashboard.me import Me

PAGES: Final = (
    ("/", "Jobs", "tune"),
    ("/new", "New job", "add_circle"),
    ("/models", "Models", "hub"),
    ("/playground", "Playground", "forum"),
    ("/files", "Files", "description"),
    ("/graders", "Graders", "rule"),
    ("/webhooks", "Webhooks", "webhook"),
    ("/server", "Server", "dns"),
)
#: Pages that are of no use to whom may change nothing.
CHANGING: Final = ("/new", "/playground")
ADMIN_PAGES: Final = (
    ("/projects", "Projects", "folder_shared"),
    ("/keys", "Keys", "key"),
    ("/trackers", "Trackers", "insights"),
    ("/storage", "Storage", "storage"),
    ("/audit", "Audit log", "history"),
)
#: How long an answer may take: inspecting and exporting read whole models.
TIMEOUT: Final = httpx2.Timeout(600.0, connect=5.0)
UNAUTHORIZED: Final = 401
#: What can be read: links, on a dark page light colours with dark words on them; what has the focus is not under the bar.
STYLE: Final = """
html { scroll-padding-top: 56px; }
.nicegui-content a.nicegui-link { color: #1d4ed8; }
.over-text { background: #fff; }
.body--dark .over-text { background: #1d1d1d; }
.template-values { grid-template-columns: minmax(8rem, 1fr) minmax(0, 2fr); }
.body--dark .nicegui-content a.nicegui-link { color: #93c5fd; }
.body--dark { --q-primary: #5ad1c5 !important; --q-negative: #fca5a5 !important; --q-positive: #86efac !important; }
.body--dark :is(.bg-primary, .bg-negative, .bg-positive, .bg-primary *, .bg-negative *, .bg-positive *) {
  color: #04211e !important;
}
"""
#: What pages are asking just now.
_ASKED: Final = set[tuple[str, str]]()
BAR: Final = "background-color: #0f6d66"


class House:
    """The pages' shared state: one HTTP client, the answers that pages share, and each browser's key, in memory only."""

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url
        self._http = httpx2.AsyncClient(base_url=api_url, timeout=TIMEOUT, trust_env=False)
        self._answers = Answers()
        self._keys: dict[str, str] = {}
        self._projects: dict[str, str] = {}
        self._dark: dict[str, bool] = {}

    async def close(self) -> None:
        """Close the client."""
        await self._http.aclose()

    def api(self, key: str | None = None, *, browser: str | None = None) -> Api:
        """Return the API in the name of `key`, or of the key of this browser, or of another request's."""
        if key is not None:
            return Api(self._http, self._answers, key)
        who = browser or _browser()
        return Api(self._http, self._answers, self._keys.get(who), self._projects.get(who))

    def log_in(self, key: str) -> None:
        """Remember the key for this browser until it logs out or the server ends."""
        self.log_out()
        self._keys[_browser()] = key

    def log_out(self) -> None:
        """Forget this browser's key."""
        self._keys.pop(_browser(), None)
        self._projects.pop(_browser(), None)

    def work_in(self, project_id: str) -> None:
        """Let this browser's admin key see and change another project from the next page on."""
        self._projects[_browser()] = project_id

    @property
    def logged_in(self) -> bool:
        """Whether this browser gave a key."""
        return _browser() in self._keys

    async def enter(self) -> Api | None:
        """Return the API for a page, or None once the visitor was sent to the page that asks for a key."""
        api = self.api()
        try:
            api.me = Me.told(await api.get("/tunesmith/v1/me"))
        except Refused as error:
            if error.status == UNAUTHORIZED:
                if self._keys.get(_browser()) == api.key:  # another may have been given while this one was refused
                    self.log_out()
                asked = {"back": _here(), **({"refused": True} if api.key else {})}
                ui.navigate.to(f"/login?{urlencode(asked)}")
                return None
        return api

    @contextmanager
    def frame(self, title: str, api: Api | None = None, *, here: str = "") -> Generator[None]:
        """Draw what stands around every page, and the page inside it."""
        ui.page_title(f"{title} · Tunesmith")
        ui.colors(
            primary="#0f6d66", secondary="#475569", accent="#b45309", positive="#15803d", negative="#b91c1c", info="#0369a1"
        )
        ui.add_css(STYLE)
        browser, me = _browser(), Me() if api is None else api.me
        dark = ui.dark_mode(self._dark.get(browser))

        def toggle() -> None:
            dark.value = not dark.value if dark.value is not None else True
            self._dark[browser] = bool(dark.value)

        main = ui.column().classes("w-full max-w-7xl mx-auto px-2 sm:px-4 pt-2 pb-12 gap-4").props("role=main")
        ui.skip_link("Skip to the page", target=main)
        with ui.header().classes("items-center gap-2 px-3 py-1").style(BAR).props("elevated"):
            ui.button(icon="menu", on_click=lambda: drawer.toggle()).props(
                'flat dense color=white aria-label="Show or hide the menu"'
            )
            ui.link("Tunesmith", "/").classes("text-white text-lg font-semibold no-underline")
            ui.space()
            if me.key_id is not None:
                ui.label(f"{me.project} · {me.role}").classes("text-white text-sm truncate max-w-40 sm:max-w-md")
            ui.button(icon="contrast", on_click=toggle).props('flat dense color=white aria-label="Light or dark"')
            if self.logged_in:
                ui.button(icon="logout", on_click=self._leave).props('flat dense color=white aria-label="Log out"')
        with (
            ui.left_drawer(bordered=True).props("width=190 breakpoint=900").classes("px-2 py-3 gap-1") as drawer,
            ui.element("nav").props('aria-label="Pages"').classes("w-full"),
        ):
            for path, name, icon in PAGES:
                if api is None or me.changes or path not in CHANGING:
                    _link(path, name, icon, here)
            if me.administers:
                ui.label("Administration").classes("text-xs uppercase opacity-80 px-3 pt-4 pb-1")
                for path, name, icon in ADMIN_PAGES:
                    _link(path, name, icon, here)
        with main:
            if api is not None and me.why_not:
                ui.label(me.why_not).classes("w-full rounded bg-amber-500/15 px-3 py-2 text-sm break-words").props(
                    "role=note"
                )
            yield

    def _leave(self) -> None:
        self.log_out()
        ui.navigate.to("/login")


def _link(path: str, name: str, icon: str, here: str) -> None:
    with ui.link(target=path).classes(
        "w-full flex items-center gap-3 px-3 py-2 rounded no-underline text-inherit hover:bg-teal-500/10"
    ) as link:
        ui.icon(icon).classes("text-lg")
        ui.label(name)
    if path == here:
        link.classes("bg-teal-500/20 font-semibold").props("aria-current=page")


def only_admins(api: Api) -> bool:
    """Tell whoever is no admin why there is nothing here; True for an admin."""
    if not api.me.administers:
        heading("For admins")
        ui.label(
            f"This page is about the whole server, and this key's role is '{api.me.role}'. "
            "Ask who runs the server, or log in with an admin key (sk-admin-…)."
        )
    return api.me.administers


def only_changing(api: Api, title: str) -> bool:
    """Head a page that is of no use to whom may change nothing, for them; the frame says why. True for all others."""
    if not api.me.changes:
        heading(title)
        ui.label("It uses the machine, which a reader's key does not.")
    return api.me.changes


def page_content() -> Element:
    """Return what a page's elements lie in: what is drawn there outlives the line whose button was pressed."""
    return ui.context.client.content


def dialog_of_page(title: str) -> ui.dialog:
    """Return a dialog that is not of the line whose button was pressed: that may be drawn anew while it is open.

    It is deleted once it is out of sight; sooner, and the focus would not go back to where it was.
    """
    with page_content():
        dialog = ui.dialog()
    dialog.props["aria-label"] = title
    dialog.on("hide", dialog.delete)
    return dialog


async def answer(dialog: ui.dialog) -> Any:
    """Return what a dialog is answered with; None where the page asks the same already, as after a double click."""
    asked = (ui.context.client.id, dialog.props["aria-label"])
    if asked in _ASKED:
        dialog.delete()
        return None
    _ASKED.add(asked)
    try:
        return await dialog
    finally:
        _ASKED.discard(asked)


def on_page(call: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    """Return a handler whose dialogs and notices belong to the page: a button in a list may be drawn anew meanwhile."""
    content = page_content()

    async def handle() -> None:
        with content:
            done = call()
            if isinstance(done, Awaitable):
                await done

    return handle


def _browser() -> str:
    return str(app.storage.browser["id"])


def _here() -> str:
    """Return the path, below the dashboard's, of the page that is asked for."""
    url = ui.context.client.request.url
    path = url.path.removeprefix(str(ui.context.client.request.scope.get("root_path", "")))
    return f"{path or '/'}?{url.query}" if url.query else path or "/"


def tell(error: Refused) -> None:
    """Show a refusal until it is closed."""
    # Quasar's own button to close it is dark on the dark red.
    close = {"label": "Close", "color": "white"}
    ui.notify(str(error), type="negative", multi_line=True, timeout=0, actions=[close])


def heading(text: str) -> ui.label:
    """Return a page's heading."""
    return ui.label(text).classes("text-2xl font-semibold").props("role=heading aria-level=1")


def section(text: str) -> ui.label:
    """Return a section's heading."""
    return ui.label(text).classes("text-lg font-semibold mt-2").props("role=heading aria-level=2")


def verbatim(text: str = "") -> ui.label:
    """Return text as it is, with a button that copies it."""
    with ui.element("div").classes("w-full relative rounded border border-gray-500/30"):
        shown = ui.label(text).classes("w-full font-mono text-sm whitespace-pre overflow-x-auto p-3")
        shown.props('tabindex=0 role=region aria-label="Code"')
        ui.button(icon="content_copy", on_click=lambda: ui.clipboard.write(shown.text)).props(
            'flat dense size=sm aria-label="Copy"'
        ).classes("absolute top-1 right-1 over-text")
    return shown


async def sure(question: str, verb: str, *, color: str = "negative") -> bool:
    """Ask before something is done that others feel; True means yes."""
    with dialog_of_page(question) as dialog, ui.card().classes("max-w-md"):
        ui.label(question).classes("break-words")
        with ui.row().classes("w-full justify-end"):
            ui.button("Leave it", on_click=lambda: dialog.submit(False)).props("flat")
            ui.button(verb, color=color, on_click=lambda: dialog.submit(True))
    return bool(await answer(dialog))


def every(seconds: float, look: Callable[[], Awaitable[None]]) -> ui.timer:
    """Look now and again every so often, as long as a browser shows it; a server away for a moment is not told each time."""
    away = False

    async def looked() -> None:
        nonlocal away
        if not ui.context.client.has_socket_connection:  # closed, or back in a moment
            return
        try:
            await look()
            away = False
        except Refused as error:
            if error.status == UNAUTHORIZED:  # the key has gone, and with it what this page could show
                ui.navigate.reload()
            elif not away:
                tell(error)
            away = True

    return ui.timer(seconds, looked)

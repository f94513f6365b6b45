"""A real browser before a real server: Chromium without a screen, driven by Selenium; skipped where there is none."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import insert

from flow.conftest import PATIENCE_S, Server, furnished, tiny_base
from near import lay_out
from tunesmith.bootstrap import compose
from tunesmith.core.settings import Settings
from tunesmith.domain.job import Job
from tunesmith.domain.scope import Project
from tunesmith.domain.states import Status
from tunesmith.store import jobs
from tunesmith.store.tables import metrics

__all__ = ["furnished", "tiny_base"]

N_POINTS = 50_000
LONG = "ftjob-long"
#: Models that jobs of long ago left.
STAYS, GOES = "ft:tiny:tunesmith:stays:AbCdEfGh", "ft:tiny:tunesmith:goes:IjKlMnOp"
#: Looks at a page whose colours have come to rest.
LOOK = """
const changing = document.getAnimations().filter(each => each instanceof CSSTransition);
const rested = Promise.allSettled(changing.map(each => each.finished));
rested.then(() => axe.run()).then(arguments[arguments.length - 1]);
"""
#: Where screenshots are kept for people to look at.
ARTEFACTS = os.environ.get("TUNESMITH_TEST_ARTEFACTS")


class Browser:
    """A page, by what a person sees of it."""

    def __init__(self, driver: Any, root: str) -> None:
        self.driver = driver
        self.root = root

    def open(self, path: str) -> None:
        from urllib3.exceptions import ReadTimeoutError

        try:
            self.driver.get(f"{self.root}/dashboard{path}")
        except ReadTimeoutError:  # a browser of a busy machine that answers its driver no more, once in many runs
            self.driver.again()
            self.driver.get(f"{self.root}/dashboard{path}")

    def until(self, condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + within_s
        while time.monotonic() < end:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:
                pass  # drawn again while it was looked at
            time.sleep(0.05)
        self.picture("failed")
        pytest.fail(f"not within {within_s} s: {what}\n{self.text[:2000]}")

    @property
    def text(self) -> str:
        return self.driver.find_element("tag name", "body").text

    def sees(self, words: str, *, within_s: float = PATIENCE_S) -> None:
        self.until(lambda: words.lower() in self.text.lower(), f"'{words}' is seen", within_s)

    def find(self, xpath: str) -> Any:
        return self.until(
            lambda: next((each for each in self.driver.find_elements("xpath", xpath) if each.is_displayed()), None), xpath
        )

    def click(self, xpath: str) -> None:
        """Click on what is there, again if the page was just drawing it, or something before it is just leaving."""
        from selenium.common.exceptions import ElementClickInterceptedException

        def clicked() -> bool:
            try:
                self.find(xpath).click()
            except ElementClickInterceptedException:
                return False
            return True

        self.until(clicked, f"{xpath} is clicked")

    def press(self, words: str) -> None:
        self.click(f"//button[.//*[normalize-space(text())='{words}'] or @aria-label='{words}']")

    def agree(self, words: str) -> None:
        """Press a button of the dialog that is open, of several the last one."""
        self.click(f"(//*[@role='dialog'])[last()]//button[contains(., '{words}')]")

    def tab(self, words: str) -> None:
        self.click(f"//*[@role='tab'][contains(., '{words}')]")

    def field(self, label: str) -> Any:
        return self.find(f"//*[@aria-label='{label}' and (self::input or self::textarea)]")

    def write(self, label: str, words: str) -> None:
        self.field(label).send_keys(words)

    def choose(self, label: str, words: str) -> None:
        """Choose what begins with `words` from the list of a field."""
        self.click(f"//label[contains(@class, 'q-select')][.//*[normalize-space(text())='{label}']]")
        self.click(f"//*[@role='option'][contains(., '{words}')]")

    def fill(self, label: str, words: str) -> None:
        """Write in the place of what stands there."""
        from selenium.webdriver import Keys

        self.field(label).send_keys(Keys.CONTROL, "a")
        self.field(label).send_keys(words)

    def faults(self, paths: Iterable[str]) -> list[str]:
        """Return what axe-core finds serious on pages."""
        found: list[str] = []
        for path in paths:
            self.open(path)
            self.find("//*[@role='heading']")
            found += [f"{path}: {fault}" for fault in self.faults_here()]
        return found

    def faults_here(self) -> list[str]:
        """Return what axe-core finds serious on the page as it is now."""
        axe = Path(os.environ.get("TUNESMITH_SDK_NODE", "nowhere")) / "node_modules" / "axe-core" / "axe.min.js"
        if not axe.exists():
            pytest.skip("no axe-core here: name the folder of its node_modules in TUNESMITH_SDK_NODE")
        self.driver.execute_script(axe.read_text())
        looked = self.driver.execute_async_script(LOOK)
        return [
            f"{fault['id']} {[node['html'][:150] for node in fault['nodes'][:3]]}"
            for fault in looked["violations"]
            if fault["impact"] in {"serious", "critical"}
        ]

    def picture(self, name: str) -> None:
        if ARTEFACTS:
            Path(ARTEFACTS).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(ARTEFACTS) / f"{name}.png"))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium."""
    chromium, steering = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or steering is None:
        pytest.skip("no browser here: install Debian's packages chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Containers often give 64 MB of shared memory, with which a page of many points hangs.
    small = "--disable-dev-shm-usage "
    quiet = "--disable-background-networking --disable-component-update --disable-sync --disable-quic --no-first-run"
    profile = tempfile.mkdtemp(dir=tmp_path_factory.mktemp("chromium"))
    for flag in ("--headless=new --no-sandbox --disable-gpu --window-size=1300,1000 " + small + quiet).split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(steering))

    def again() -> None:
        """Start it anew in its own place, where it answers nobody any more."""
        made.service.process.kill()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if profile.encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        made.__init__(options=options, service=webdriver.ChromeService(steering))

    made.again = again
    yield made
    made.quit()


@pytest.fixture(scope="module")
def server(furnished: Path, driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has run a long job; `driver` is asked for first, since without a browser none of this is needed."""
    folder = tmp_path_factory.mktemp("seen") / "data"
    shutil.copytree(furnished, folder, ignore=shutil.ignore_patterns("*.sock"))
    long_ago(folder)
    made = Server(folder).start()
    yield made
    driver.get("about:blank")  # no page goes on looking for a server that has gone
    made.close()


def long_ago(folder: Path, n_points: int = N_POINTS) -> None:
    """Write down a job of many steps and two with models, as if they had been run; that is not the pages' business."""
    composed = compose(Settings(data_dir=folder))
    scope, now = Project("proj_default"), composed.services.clock.now()
    job = Job(
        id=LONG, project_id=scope.project_id, organization_id=scope.organization_id, model="tiny", base="tiny",
        start_adapter=None, training_file="file-gone", validation_file=None, suffix="long", seed=1, method="supervised",
        method_config={"hyperparameters": {"n_epochs": "auto"}}, resolved={"n_epochs": 3}, integrations=[],
        metadata={"team": "curves"}, created_at=now - 3600, status=Status.SUCCEEDED, finished_at=now,
        counts={"total_steps": n_points, "n_examples": 12},
    )  # fmt: skip
    rows = [
        {"job_id": LONG, "step": step, "project_id": scope.project_id, "data": {"train_loss": 4 / step**0.5}}
        for step in range(1, n_points + 1)
    ]
    try:
        with composed.db.begin() as tx:
            jobs.add(tx, scope, job)
            tx.execute(insert(metrics), rows)
        for name in (STAYS, GOES):
            lay_out(SimpleNamespace(composed=composed), name, base="tiny")
    finally:
        composed.db.close()
        composed.folder.close()


@pytest.fixture
def browser(driver: Any, server: Server) -> Browser:
    """A page that has not been opened yet."""
    driver.set_window_size(1300, 1000)
    return Browser(driver, server.url.removesuffix("/v1"))


@pytest.fixture
def downloads(driver: Any, tmp_path: Path) -> Iterator[Path]:
    """The folder of what the browser downloads."""
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    yield tmp_path
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "default"})

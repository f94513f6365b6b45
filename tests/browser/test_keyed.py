"""Where keys are wanted: who may what, as the pages show it; admins, readers, and those whose key has gone."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from browser.conftest import STAYS, Browser, Server, long_ago

KEY = "sk-admin-of-the-tests-which-nobody-else-has"
ADMIN_PAGES = ("/projects", "/keys", "/webhooks", "/trackers", "/storage", "/audit", "/server")
LONG_NAME = "The project of those who give everything the longest name thatTheyCanThinkOfWithoutAnySpaceBetweenItsWords"
HOOK = {"name": "elsewhere", "url": "https://hooks.example.com/x", "event_types": ["fine_tuning.job.failed"]}
CODE = "//*[@role='dialog']//*[@aria-label='Code']"


@pytest.fixture(scope="module")
def receiver() -> Iterator[tuple[str, list[bytes]]]:
    """Somebody's server that takes webhooks: its address, and what it got."""
    got: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    serving = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"localhost:{serving.server_port}", got
    serving.shutdown()
    serving.server_close()


@pytest.fixture(scope="module")
def keyed(
    furnished: Path, driver: Any, receiver: tuple[str, list[bytes]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed") / "data"
    shutil.copytree(furnished, folder, ignore=shutil.ignore_patterns("*.sock"))
    long_ago(folder, n_points=50)
    made = Server(folder, auth="on", admin_key=KEY, webhook_hosts=receiver[0]).start()
    yield made
    driver.get("about:blank")  # no page goes on looking for a server that has gone
    made.close()


@pytest.fixture
def browser(driver: Any, keyed: Server) -> Browser:
    driver.set_window_size(1300, 1000)
    return Browser(driver, keyed.url.removesuffix("/v1"))


@pytest.fixture(scope="module")
def ask(keyed: Server) -> Iterator[Callable[..., httpx2.Response]]:
    """Ask the API with a key."""
    with httpx2.Client(base_url=keyed.url.removesuffix("/v1"), timeout=60, trust_env=False) as http:

        def asked(verb: str, path: str, key: str = KEY, **sent: Any) -> httpx2.Response:
            return http.request(verb, path, headers={"authorization": f"Bearer {key}"}, **sent)

        yield asked


def log_in(browser: Browser, key: str = KEY) -> None:
    browser.open("/login")
    browser.write("API key", f"{key}\n")
    browser.until(lambda: browser.driver.current_url.endswith("/dashboard/"), "the jobs are shown")
    browser.find("//button[@aria-label='Log out']")


def test_one_is_asked_for(browser):
    browser.open("/")
    browser.write("API key", "sk-wrong")
    browser.press("Log in")
    browser.sees("Incorrect API key")
    log_in(browser)
    browser.press("Log out")
    browser.find("//*[@aria-label='API key']")
    browser.open("/models")
    browser.find("//*[@aria-label='API key']")


def test_an_admin_makes_a_project_and_a_key_which_opens_it_until_it_is_revoked(browser, ask):
    log_in(browser)
    browser.open("/projects")
    browser.press("New project")
    browser.agree("Create")
    browser.sees("name")  # it has none: the refusal stands in the dialog, which stays
    browser.write("Name", "Speech")
    browser.agree("Create")
    browser.press("Rename Speech")
    browser.fill("Name", LONG_NAME)
    browser.agree("Rename")
    browser.sees(LONG_NAME)
    browser.press(f"Limits {LONG_NAME}")
    browser.write("Files", "a few")
    browser.agree("Save")
    browser.sees('"a few" is no number')
    browser.fill("Files", "7")
    browser.picture("limits")
    browser.agree("Save")
    browser.sees("The limits hold")
    [project] = [each for each in ask("GET", "/v1/organization/projects").json()["data"] if each["name"] == LONG_NAME]
    limits = ask("GET", f"/tunesmith/v1/projects/{project['id']}/limits").json()
    assert (limits["limits"]["files"], limits["own"]) == (7, ["files"])

    browser.open("/keys")
    browser.press("New key")
    browser.write("Name", "the screen in the hall")
    browser.choose("Of project", LONG_NAME)
    browser.choose("Role", "reader")
    browser.write("Days until it expires", "30")
    browser.agree("Create")
    secret = browser.find(CODE).text
    browser.picture("key-once")
    browser.agree("I have it")
    browser.sees("never used")
    browser.until(lambda: secret not in browser.driver.page_source, "the secret is gone")
    assert ask("GET", "/v1/files", secret).json()["data"] == []
    assert ask("GET", "/tunesmith/v1/me", secret).json()["project"]["id"] == project["id"]

    log_in(browser, secret)
    browser.sees("changes nothing")
    assert LONG_NAME in browser.text
    browser.open("/keys")
    browser.sees("this key's role is 'reader'")
    log_in(browser)
    browser.open("/projects")
    browser.press(f"Work in it {LONG_NAME}")
    browser.sees("No job here.")
    browser.open("/keys")
    browser.press("Revoke the screen in the hall")
    browser.agree("Revoke")
    browser.sees("No key of a project.")
    assert ask("GET", "/v1/files", secret).status_code == 401
    browser.open("/projects")
    browser.press(f"Archive {LONG_NAME}")
    browser.agree("Archive")
    browser.until(lambda: f"Archive {LONG_NAME}" not in browser.driver.page_source, "it is archived")
    browser.open("/audit")
    browser.sees("DELETE /tunesmith/v1/keys/{key_id}")
    browser.sees("/v1/organization/projects/{project_id}/archive")


def test_a_revoked_key_leads_to_the_page_that_asks_for_one_and_that_leads_back(browser, ask):
    made = ask("POST", "/tunesmith/v1/keys", json={"name": "short", "role": "member"}).json()
    log_in(browser, made["value"])
    browser.open("/jobs/ftjob-long")
    browser.sees("step 50 of 50")
    browser.tab("Events")
    ask("DELETE", f"/tunesmith/v1/keys/{made['id']}").raise_for_status()
    browser.sees("not accepted any more")
    browser.picture("revoked")
    browser.write("API key", f"{KEY}\n")
    browser.sees("step 50 of 50")
    assert browser.driver.current_url.endswith("/dashboard/jobs/ftjob-long")


def test_a_reader_sees_everything_and_can_touch_nothing(browser, ask):
    made = ask("POST", "/tunesmith/v1/keys", json={"name": "guest", "role": "reader"}).json()
    ask("POST", "/v1/files", data={"purpose": "user_data"}, files={"file": ("seen.txt", b"x")})
    ask("POST", "/v1/webhook_endpoints", json=HOOK).raise_for_status()
    log_in(browser, made["value"])
    seen = {
        "/": "long", "/jobs/ftjob-long": "succeeded", "/models": "tiny", "/files": "seen.txt", "/graders": "Grader bench",
        "/webhooks": "elsewhere", "/server": "slots taken", "/new": "uses the machine", "/playground": "uses the machine",
    }  # fmt: skip
    touch = (
        "New job",
        "Cancel",
        "Pause",
        "Resume",
        "Upload JSONL",
        "Delete",
        "Names",
        "Share",
        "Create job",
        "Send",
        "Run",
        "New webhook",
    )
    for path, words in seen.items():
        browser.open(path)
        browser.sees(words)
        browser.sees("changes nothing")
        buttons = [
            each.get_attribute("aria-label") or each.text for each in browser.driver.find_elements("tag name", "button")
        ]
        # what is written on a button may be shown in capitals
        found = [word for word in touch for label in buttons if label.strip().lower().startswith(word.lower())]
        assert not found, f"{path}: {found}"
    browser.open("/graders")
    browser.press("Fill templates")
    browser.sees("It is Lyon.")
    browser.picture("reader-graders")
    assert ask("POST", "/v1/fine_tuning/jobs/ftjob-long/cancel", made["value"]).status_code == 403


def test_an_admin_lets_another_project_use_a_model_until_it_is_withdrawn(browser, ask):
    project = ask("POST", "/v1/organization/projects", json={"name": "Friends"}).json()["id"]
    member, friend = (
        ask("POST", "/tunesmith/v1/keys", json={"name": name, "project_id": of}).json()["value"]
        for name, of in (("own", "proj_default"), ("friend", project))
    )

    def seen() -> set[str]:
        return {each["id"] for each in ask("GET", "/v1/models", friend).json()["data"]}

    log_in(browser, member)
    browser.open("/models")
    browser.find(f"//button[@aria-label='Delete {STAYS}']")
    assert "Share" not in browser.text  # a plain key is not offered it
    log_in(browser)
    browser.open("/models")
    browser.press(f"Share {STAYS}")
    browser.sees("No other project.")
    browser.choose("Project", "Friends")
    browser.agree("Let it use it")
    browser.find("//button[@aria-label='Withdraw Friends']")
    browser.picture("sharing")
    assert STAYS in seen()
    [job] = [each["id"] for each in ask("GET", "/v1/fine_tuning/jobs").json()["data"] if each["fine_tuned_model"] == STAYS]
    browser.open(f"/jobs/{job}")
    browser.tab("Checkpoints")
    browser.press(f"Share {STAYS}")
    browser.find("//button[@aria-label='Withdraw Friends']")
    # of colours it says nothing: it takes the shade behind a dialog for the dialog's own ground
    assert not [fault for fault in browser.faults_here() if not fault.startswith("color-contrast")]
    browser.press("Withdraw Friends")
    browser.agree("Withdraw")
    browser.sees("No other project.")
    assert STAYS not in seen()


def test_a_webhook_is_made_and_tried_out(browser, ask, receiver):
    address, got = receiver
    log_in(browser)
    browser.open("/webhooks")
    browser.press("New webhook")
    browser.write("Name", "ci")
    browser.fill("URL", "http://hooks.example.com/")
    browser.agree("Create")
    browser.sees("https")  # the refusal and its way out
    browser.fill("URL", f"http://{address}/hooks")
    browser.agree("Create")
    secret = browser.find(CODE).text
    assert secret.startswith("whsec_")
    browser.agree("I have it")
    browser.press("Test ci")
    browser.agree("Send")
    browser.sees("ci answered 204.")
    assert json.loads(got[-1])["type"].startswith("fine_tuning.job.")
    browser.press("New secret ci")
    browser.agree("Make it")
    assert browser.find(CODE).text not in ("", secret)
    browser.agree("I have it")

    file = ask("POST", "/v1/files", data={"purpose": "fine-tune"}, files={"file": ("r.jsonl", b'{"messages": []}\n')}).json()
    job = ask("POST", "/v1/fine_tuning/jobs", json={"model": "tiny", "training_file": file["id"]}).json()["id"]
    ask("POST", f"/v1/fine_tuning/jobs/{job}/cancel")
    browser.press("Log ci")
    browser.sees(job)
    browser.sees("delivered")
    browser.picture("webhook-log")
    n_got = len(got)
    browser.click("//*[@role='dialog']//button[contains(@aria-label, 'Send again')]")
    browser.until(lambda: len(got) > n_got, "it is sent again")
    browser.press("Close")
    browser.press("Delete ci")
    browser.agree("Delete")
    browser.until(lambda: address not in browser.text, "it is gone")


def test_an_admin_registers_a_key_of_a_tracker_which_is_never_shown(browser, ask):
    log_in(browser)
    browser.open("/trackers")
    browser.sees("No key is registered")
    browser.press("Register")
    browser.agree("Register")
    browser.sees("Write the key.")
    browser.write("Key", "w" * 40)
    browser.write("Server of your own", "wandb.example.com")
    browser.agree("Register")
    browser.sees("the http or https address")
    browser.fill("Server of your own", "https://wandb.example.com")
    browser.agree("Register")
    browser.sees("A key for https://wandb.example.com")
    browser.until(lambda: "w" * 40 not in browser.driver.page_source, "the key is gone from the page")
    browser.sees("TensorBoard")
    browser.picture("trackers")
    [registered] = ask("GET", "/tunesmith/v1/integrations").json()["data"]
    assert registered["base_url"] == "https://wandb.example.com"
    browser.press("Remove")
    browser.agree("Remove")
    browser.sees("No key is registered")
    assert ask("GET", "/tunesmith/v1/integrations").json()["data"] == []


def test_what_a_collection_would_free_is_shown_and_a_policy_kept(browser, ask):
    log_in(browser)
    browser.open("/storage")
    browser.sees("Files of Default project")
    [has] = [each for each in ask("GET", "/tunesmith/v1/storage").json()["data"] if each["project_id"] == "proj_default"]
    browser.sees(f"Models of Default project {has['models']['n']} {has['models']['bytes'] / 1000:.1f} KB")
    browser.write("Result files: older than … days", "365")
    browser.write("Earlier checkpoints of ended jobs: keep", "best")
    browser.write("Runs of trackers kept here, of ended jobs: older than … days", "180")
    browser.press("Save")
    browser.sees("within the hour")
    policy = ask("GET", "/tunesmith/v1/retention").json()
    assert policy["runs"] == {"older_than_days": 180}
    assert (policy["results"], policy["checkpoints"]["keep"]) == ({"older_than_days": 365}, "best")
    browser.press("Look")
    browser.sees("would go")
    browser.picture("storage")


def test_new_pages_are_narrow_and_dark_and_without_complaints(browser):
    log_in(browser)
    browser.driver.get_log("browser")  # what other pages complained of
    browser.press("Light or dark")
    narrow = {"width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    try:
        for path in ADMIN_PAGES:
            browser.open(path)
            browser.find("//*[@role='heading']")
            browser.until(
                lambda: browser.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"),
                f"{path} fits a narrow screen",
            )
            browser.picture(f"narrow-dark{path.replace('/', '-')}")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    told = [line for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"]
    assert not told
    assert not browser.faults(ADMIN_PAGES)

"""Whole ways through the dashboard: a form and its code, the keyboard alone, a list that lives, a server that comes back."""

import io
import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import httpx2
import pytest

from browser.conftest import LONG, Browser, Server, long_ago
from flow.conftest import LIKENESS, ROWS

#: Where the server listens, so that it can be started again at the same address.
ADDRESS = "return location.port"
SHOWN = "return [...document.querySelectorAll('[aria-label=Code]')].find(each => each.offsetParent).textContent"
FOCUS = """
const at = document.activeElement.closest("button") ?? document.activeElement;
return at.ariaLabel || at.textContent;
"""
SAME = ("model", "training_file", "validation_file", "method", "metadata", "seed", "user_provided_suffix")
#: Moves the pointer's line to a step of the first chart and reads what is told there.
HOVER = """
const element = document.querySelector("[aria-label*=Loss]:has(canvas)");
const chart = getElement(Number(element.id.slice(1))).chart;
chart.dispatchAction({type: "showTip", x: chart.getWidth() / 2, y: chart.getHeight() / 2});
return [...element.children].map(each => each.innerText).join(" ");
"""


@pytest.fixture(scope="module")
def server(furnished: Path, driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("journeys") / "data"
    shutil.copytree(furnished, folder, ignore=shutil.ignore_patterns("*.sock"))
    long_ago(folder, n_points=50)
    made = Server(folder).start()
    yield made
    driver.get("about:blank")
    made.close()


def keys(browser: Browser, *pressed: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser.driver).send_keys(*pressed).perform()


def file_of(tmp_path: Path, method: str, n_rows: int = 12) -> str:
    path = tmp_path / f"{method}.jsonl"
    path.write_text("\n".join(json.dumps(ROWS[method](n)) for n in range(n_rows)))
    return str(path)


def upload(browser: Browser, path: str, place: int = 0) -> None:
    browser.until(lambda: len(browser.driver.find_elements("xpath", "//input[@type='file']")) == 2, "the form")
    browser.driver.find_elements("xpath", "//input[@type='file']")[place].send_keys(path)


@pytest.mark.parametrize("method", ["supervised", "dpo", "reinforcement"])
def test_the_code_that_a_form_shows_creates_the_job_that_it_creates(browser, server, tmp_path, monkeypatch, method):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    file = file_of(tmp_path, method)
    browser.open("/new")
    browser.press(method)
    upload(browser, file)
    browser.sees("number 3")
    first = browser.driver.execute_script(SHOWN)
    upload(browser, file)  # corrected, say: it takes the place of the first
    browser.until(lambda: browser.driver.execute_script(SHOWN) != first, "the second file is chosen")
    assert "validation_file" not in browser.driver.execute_script(SHOWN)
    upload(browser, file, 1)
    browser.sees("validation_file")
    browser.click("//label[contains(@class, 'q-select')][.//*[normalize-space(text())='Model']]")
    browser.click("//*[@role='option'][normalize-space(.)='tiny']")
    browser.write("Suffix (a name for the model)", method)
    browser.write("Metadata (key=value, …)", 'who=it\'s me, note="größe"')
    browser.write("Seed", "11")
    browser.write("n_epochs", "2")
    if method == "reinforcement":
        browser.fill("Grader (JSON)", json.dumps(LIKENESS))
        browser.sees("text_similarity")
    browser.until(lambda: "'n_epochs': 2" in browser.driver.execute_script(SHOWN), "the code is of the whole form")
    python = browser.driver.execute_script(SHOWN)
    browser.driver.execute_script("window.scrollTo(0, 0)")
    browser.tab("curl")
    browser.until(lambda: browser.driver.execute_script(SHOWN).startswith("curl "), "the shell's words")
    curl = shlex.split(browser.driver.execute_script(SHOWN).replace("\\\n", " "))
    browser.picture(f"form-{method}")

    made = list[str]()
    with redirect_stdout(io.StringIO()) as told:
        exec(python, {})
    made.append(told.getvalue().split()[0])
    made.append(json.loads(subprocess.run([*curl, "--silent"], capture_output=True, check=True).stdout)["id"])
    browser.press("Create job")
    browser.until(lambda: "/jobs/ftjob-" in browser.driver.current_url, "the job's page opens")
    made.append(browser.driver.current_url.rpartition("/")[2])
    jobs = [server.cancel(job).to_dict() for job in made]
    server.jobs += made
    assert jobs[0]["metadata"] == {"who": "it's me", "note": '"größe"'}
    assert len(set(made)) == 3
    for job in jobs:  # what is resolved by now depends on how far it came
        details = httpx2.get(f"{browser.root}/tunesmith/v1/fine_tuning/jobs/{job['id']}", trust_env=False).json()
        job["method"][method]["hyperparameters"] = details["requested"]
    wished, *others = ({name: job[name] for name in SAME} for job in jobs)
    assert others == [wished, wished]


def test_the_keyboard_alone_is_enough(browser, server):
    from selenium.webdriver import ActionChains, Keys

    file = server.upload(3)
    browser.open("/files")
    delete = f"//*[contains(., '{file}')]/ancestor::*[contains(@class, 'row')][1]//button[@aria-label='Delete']"
    browser.driver.execute_script("arguments[0].focus()", browser.find(delete))
    for _ in range(2):
        keys(browser, Keys.ENTER)
        browser.sees(f"rows.jsonl ({file})")
        keys(browser, Keys.ESCAPE)
        browser.until(lambda: not browser.driver.find_elements("xpath", "//*[@role='dialog']"), "the question is gone")
        assert browser.driver.execute_script(FOCUS) == "Delete", "one is where one was"
    ActionChains(browser.driver).double_click(browser.find(delete)).perform()
    browser.sees(f"rows.jsonl ({file})")
    assert len(browser.driver.find_elements("xpath", "//*[@role='dialog']")) == 1
    keys(browser, Keys.ESCAPE)
    browser.until(lambda: browser.driver.execute_script(FOCUS) == "Delete", "the question is gone")
    keys(browser, Keys.ENTER)
    browser.sees(f"rows.jsonl ({file})")
    browser.until(lambda: browser.driver.execute_script(FOCUS).startswith("Delete rows"), "the question has the focus")
    keys(browser, Keys.TAB, Keys.TAB, Keys.ENTER)
    browser.until(lambda: file not in browser.text, "the file is gone")


def test_the_list_of_jobs_lives_and_every_filter_leaves_what_it_says(browser, server):
    from selenium.webdriver import Keys

    browser.open("/")
    browser.sees(LONG)
    job = server.create(server.upload(200), n_epochs=40)
    browser.sees(job)
    server.cancel(job)
    browser.sees("cancelled")
    for label, left, other in (("Status", "succeeded", "failed"), ("Method", "supervised", "dpo")):
        for words in (left, other):
            browser.open("/")
            browser.sees(LONG)
            browser.choose(label, words)
            keys(browser, Keys.ESCAPE)
            browser.until(lambda words=words, left=left: (LONG in browser.text) == (words == left), f"{label} {words}")
    browser.open("/")
    browser.sees(LONG)
    browser.write("Search", "no such model")
    browser.sees("No job here.")
    browser.fill("Search", "tiny")
    browser.sees(LONG)
    browser.picture("filtered")


def test_a_curve_tells_its_step_and_values_where_one_points(browser):
    browser.open(f"/jobs/{LONG}")
    browser.find("//*[contains(@aria-label, 'Loss')]//canvas")
    browser.until(lambda: "step 2" in browser.driver.execute_script(HOVER), "a step is told")
    assert "train_loss" in browser.driver.execute_script(HOVER)
    browser.picture("hover")


def test_a_table_is_looked_into_as_text(browser, server):
    with server.client as client:
        file = client.files.create(file=("table.csv", b"step,train_loss\n1,4.5\n"), purpose="user_data").id
    browser.open(f"/files?open={file}")
    browser.sees("step,train_loss")
    assert "not JSON" not in browser.text


def test_an_address_without_a_page_leads_on(browser):
    browser.open("/nothing/here")
    browser.sees("No such page")
    browser.click("//*[@role='main']//a")
    browser.sees(LONG)


def test_a_page_comes_back_with_its_server(browser, server):
    server.port = int(browser.driver.execute_script(ADDRESS) or 0)
    browser.open(f"/jobs/{LONG}")
    browser.sees("step 50 of 50")
    server.kill()
    browser.sees("Connection lost")
    browser.driver.execute_script("window.before = true")
    server.start()
    browser.until(
        lambda: not browser.driver.execute_script("return window.before") and "step 50 of 50" in browser.text,
        "the page is drawn anew",
    )
    server.create(server.upload(3))
    browser.click("//a[normalize-space(.)='Tunesmith']")
    browser.sees("supervised")

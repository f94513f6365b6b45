"""The dashboard as a person uses it: what is clicked, and what is seen then."""

import json
import tarfile
import time
from pathlib import Path

import httpx2
import openai
import pytest

from browser.conftest import GOES, LONG, N_POINTS, STAYS

#: The first and the last step that the first chart shows.
DRAWN = """
const element = document.querySelector("[aria-label*=Loss]:has(canvas)");
const points = getElement(Number(element.id.slice(1)))?.chart?.getOption()?.series?.[0]?.data;
return points && [points[0][0], points[points.length - 1][0]];
"""
#: The second point of the first chart: the first one is the same however smooth the curve.
SECOND = """
const element = document.querySelector("[aria-label*=Loss]:has(canvas)");
return getElement(Number(element?.id.slice(1)))?.chart?.getOption()?.series?.[0]?.data?.[1]?.[1];
"""
#: The names of the lines of the chart of losses.
SERIES = """
const element = document.querySelector("[aria-label*=Loss]:has(canvas)");
const series = getElement(Number(element?.id.slice(1)))?.chart?.getOption()?.series ?? [];
return series.map(each => each.name);
"""
#: What a page fetched from elsewhere.
OUTSIDE = """
const fetched = performance.getEntriesByType("resource").map(each => new URL(each.name));
return fetched.filter(each => each.host != location.host && each.protocol.startsWith("http")).map(String);
"""
PAGES = ("/", f"/jobs/{LONG}", "/new", "/models", "/playground", "/files", "/graders", "/server", "/login")

ROWS = "\n".join(
    json.dumps({"messages": [{"role": "user", "content": f"number {n}"}, {"role": "assistant", "content": f"it is {n}"}]})
    for n in range(12)
)

SAME = {
    "type": "string_check", "name": "same", "operation": "eq", "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
}  # fmt: skip
BOTH = {
    "type": "multi", "name": "both", "calculate_output": "(same + within) / 2",
    "graders": {"same": SAME, "within": {**SAME, "name": "within", "operation": "like"}},
}  # fmt: skip


def test_the_root_leads_to_the_jobs_and_filters_leave_some(browser):
    browser.driver.get(browser.root)
    browser.sees("long")
    assert browser.driver.current_url.endswith("/dashboard/")
    browser.write("Search", "nothing like it")
    browser.sees("No job here.")
    browser.open("/")
    browser.write("Metadata (key=value)", "team=curves")
    browser.sees("team=curves")
    browser.write("Metadata (key=value)", "x")
    browser.sees("No job here.")
    browser.open("/")
    browser.write("Metadata (key=value)", "team")
    browser.sees("write key=value")


def test_a_long_curve_is_drawn_at_once(browser):
    browser.open("/files")  # what the browser keeps of the page kit is not the curve's
    began = time.monotonic()
    browser.open(f"/jobs/{LONG}")
    browser.find("//*[contains(@aria-label, 'Loss')]//canvas")
    took = time.monotonic() - began
    browser.sees(f"step {N_POINTS:,} of {N_POINTS:,}")
    browser.until(lambda: browser.driver.execute_script(DRAWN) == [1, N_POINTS], "the first and the last step are drawn")
    browser.picture("curve")
    assert took < 20.0, took


def test_a_curve_is_as_smooth_as_the_slider_says(browser):
    from selenium.webdriver import ActionChains, Keys

    browser.open(f"/jobs/{LONG}")
    rough = browser.until(lambda: browser.driver.execute_script(SECOND), "the curve is drawn")
    ActionChains(browser.driver).click(browser.find("//*[@role='slider'][@aria-label='Smoothing']")).perform()
    browser.until(lambda: browser.driver.execute_script(SECOND) > rough, "a click smooths it")
    smooth = browser.driver.execute_script(SECOND)
    browser.picture("smoothed")
    ActionChains(browser.driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    browser.until(lambda: browser.driver.execute_script(SECOND) > smooth, "a key smooths it more")
    ActionChains(browser.driver).send_keys(*[Keys.PAGE_DOWN] * 6).perform()
    browser.until(lambda: browser.driver.execute_script(SECOND) == rough, "and another one takes it all back")


def test_from_a_file_to_an_answer(browser, server, tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    file.write_text(ROWS)
    browser.open("/new")
    browser.sees("The same request as code")
    browser.driver.find_element("xpath", "//input[@type='file']").send_keys(str(file))
    browser.sees("it is 3")  # the first rows, as conversations
    browser.choose("Model", "tiny")
    browser.write("Suffix (a name for the model)", "seen")
    browser.write("n_epochs", "2")
    browser.sees("'n_epochs': 2")
    browser.sees("suffix='seen'")
    browser.press("Check first")
    browser.sees("This job can run.")
    browser.picture("new")
    browser.press("Create job")
    browser.until(lambda: "/jobs/ftjob-" in browser.driver.current_url, "the job's page opens")
    job = browser.driver.current_url.rpartition("/")[2]
    server.jobs.append(job)
    browser.sees("succeeded", within_s=240)
    browser.find("//*[contains(@aria-label, 'Loss')]//canvas")
    browser.tab("Events")
    browser.sees("The job has successfully completed")
    browser.tab("Checkpoints")
    browser.sees(":ckpt-step-")
    browser.tab("Before and after")
    browser.until(lambda: "number " in browser.text or "No row was answered" in browser.text, "answers, or when they come")
    browser.tab("Parameters")
    browser.sees("learning_rate_multiplier")
    browser.sees("auto")
    browser.picture("job")
    browser.click("//a[normalize-space(.)='Try it']")
    browser.sees("Playground")
    browser.write("Message", "number 3")
    browser.press("Send")
    answers = "//*[@role='log']//*[contains(@class, 'grid')]//*[contains(@class, 'whitespace-pre-wrap')]"
    browser.until(
        lambda: (
            [bool(each.get_property("textContent")) for each in browser.driver.find_elements("xpath", answers)]
            == [True, True]
        ),
        "both answer",
    )
    browser.until(lambda: browser.find("//button[.//*[text()='Send']]").is_enabled(), "the answers end")
    browser.picture("playground")
    assert server.job(job).status == "succeeded"


def test_runs_lie_over_each_other(browser, server):
    job = server.create(server.upload(20))
    server.reaches(job, "succeeded")
    browser.open(f"/jobs/{LONG}")
    browser.choose("Compare with", job[-6:])
    browser.until(lambda: len(browser.driver.execute_script(SERIES)) == 2, "both are drawn")
    assert all(name.endswith("train_loss") for name in browser.driver.execute_script(SERIES))
    browser.picture("overlaid")


def test_what_a_step_sampled_is_shown_with_its_grades(browser, server):
    job = server.create(server.upload(10, method="reinforcement"), method="reinforcement", n_epochs=1)
    server.reaches(job, "succeeded")
    browser.open(f"/jobs/{job}")
    browser.tab("Rollouts")
    browser.sees("reward")
    browser.sees("sample 2")
    browser.picture("rollouts")
    browser.tab("Parameters")
    browser.sees('"type": "text_similarity"')


def test_a_job_is_paused_resumed_and_cancelled_once_one_is_sure(browser, server):
    job = server.create(server.upload(200), n_epochs=40)
    browser.open(f"/jobs/{job}")
    browser.until(lambda: server.status(job) == "running", "it trains")
    for verb, status in (("Pause", "paused"), ("Resume", "running")):
        browser.press(verb)
        browser.agree(verb)
        browser.until(lambda status=status: server.status(job) == status, f"the job is {status}")
    browser.press("Cancel")
    browser.sees("ends at once and for good")
    browser.press("Leave it")
    browser.press("Cancel")
    browser.agree("Cancel")
    browser.until(lambda: server.status(job) == "cancelled", "the job is cancelled")
    browser.sees("cancelled")


def test_a_grader_is_tried_on_rows(browser):
    browser.open("/graders")
    browser.press("Run")
    browser.sees("reward 1")
    browser.sees("reward 0")
    browser.fill("Grader (JSON)", json.dumps(BOTH))
    browser.fill("Rows (JSONL)", json.dumps({"sample": "Paris, of course", "item": {"answer": "Paris"}}))
    browser.press("Run")
    browser.sees("within scores 1")
    browser.sees("same scores 0")
    browser.sees("reward 0.5")
    shown = [line.strip() for line in browser.text.splitlines()]
    at = shown.index("within scores 1")
    assert shown[at + 1 : at + 7] == [
        "input", "{{ sample.output_text }}", "Paris, of course", "reference", "{{ item.answer }}", "Paris"
    ]  # fmt: skip
    assert "{{ item.none }}: there is no item.none" not in shown
    browser.fill("Grader (JSON)", json.dumps({**SAME, "reference": "{{ item.none }}"}))
    browser.press("Run")
    browser.sees("{{ item.none }}: there is no item.none")
    browser.picture("graders")


def test_what_is_wrong_with_a_file_is_shown_at_its_lines(browser, tmp_path: Path):
    file = tmp_path / "bad.jsonl"
    wrong = {"messages": [{"role": "user", "content": "nobody answers"}]}
    file.write_text(f"{ROWS}\n{json.dumps(wrong)}\n")
    browser.open("/new")
    browser.driver.find_element("xpath", "//input[@type='file']").send_keys(str(file))
    browser.sees("it is 3")
    browser.choose("Model", "tiny")
    browser.press("Check first")
    browser.sees("Rows of the training file that something is wrong with")
    browser.find("//*[text()='line 13']")
    browser.sees("nobody answers")
    browser.picture("wrong-rows")
    browser.write("Suffix (a name for the model)", "x" * 65)
    browser.press("Create job")
    browser.find("//*[contains(@class, 'q-field--error')][.//*[@aria-label='Suffix (a name for the model)']]")


def test_a_model_is_exported_and_one_is_deleted(browser, server, downloads):
    browser.open("/models")
    browser.press(f"Export {STAYS}")
    browser.find("//a[contains(., 'Adapter')]")
    assert not browser.faults_here()
    browser.picture("export")
    browser.click("//a[contains(., 'Adapter')]")
    [fetched] = browser.until(lambda: [*downloads.glob("*.tar")], "the archive is there")
    assert fetched.name == "ft-tiny-tunesmith-stays-AbCdEfGh-adapter.tar"
    with tarfile.open(fetched) as archive:
        inside = {name.rpartition("/")[2] for name in archive.getnames()}
    assert inside == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    browser.until(lambda: len(browser.driver.window_handles) == 1, "the page that fetched it closes")
    refused = httpx2.get(f"{browser.root}/dashboard/raw/tunesmith/v1/models/ft:none/export?format=adapter", trust_env=False)
    assert (refused.status_code, "ft:none" in refused.text) == (404, True)  # which that page shows
    browser.press(f"Delete {GOES}")
    browser.sees("It stops answering at once.")
    browser.press("Leave it")
    with server.client as client:
        said = {"messages": [{"role": "user", "content": "number 3"}], "max_completion_tokens": 3}
        assert client.chat.completions.create(model=GOES, **said).choices
        browser.press(f"Delete {GOES}")
        browser.agree("Delete")
        browser.until(lambda: GOES not in browser.text, "it is gone")
        assert {STAYS, GOES} & {model.id for model in client.models.list()} == {STAYS}
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model=GOES, **said)
    assert STAYS in browser.text


def test_files_are_looked_into_downloaded_and_deleted(browser, server, downloads):
    file = server.upload(5)
    browser.open(f"/files?open={file}")
    browser.sees("it is 4")
    browser.press("Close")
    line = f"//*[contains(., '{file}')]/ancestor::*[contains(@class, 'row')][1]"
    browser.click(f"{line}//button[@aria-label='Download']")
    browser.until(lambda: "it is 4" in "".join(each.read_text() for each in downloads.glob("*.jsonl")), "it is downloaded")
    browser.click(f"{line}//button[@aria-label='Delete']")
    browser.agree("Delete")
    browser.until(lambda: file not in browser.text, "the file is gone")


def test_narrow_and_dark_and_without_complaints_of_the_browser(browser):
    for path in PAGES:
        browser.driver.set_window_size(420, 900)
        browser.open(path)
        browser.press("Light or dark")
        browser.until(
            lambda: browser.driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"),
            f"{path} fits a narrow screen",
        )
        assert browser.driver.execute_script(OUTSIDE) == []
        browser.picture(f"narrow{path.replace('/', '-')}")
    told = [line for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"]
    assert not told


def test_those_who_do_not_see_or_use_a_mouse_find_their_way(browser):
    assert not browser.faults(PAGES)
    browser.open("/files?open=file-none")
    words, close = "//*[@role='alert'][contains(., 'file-none')]", "//*[@role='alert']//button[contains(., 'Close')]"
    colors = [browser.find(each).value_of_css_property("color") for each in (words, close)]
    assert colors[0] == colors[1], "what closes a refusal is as easy to read as the refusal"

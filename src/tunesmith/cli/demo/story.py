"""What the demonstration does, in order, with the unmodified `openai` package: ask, upload, train, cancel, ask again."""

import itertools
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunesmith.cli.client import REFUSED, fail
from tunesmith.cli.demo.house import House, tagged_processes, wait_until_gone
from tunesmith.cli.demo.screen import Screen
from tunesmith.cli.demo.tickets import Ticket, Tickets, make_tickets, right, write_rows

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob, SupervisedHyperparametersParam

BASE: Final = "tunesmith-nano"
#: Larger steps than `auto` takes, which is made for bases a thousand times the size of this one.
HYPERPARAMETERS: Final["SupervisedHyperparametersParam"] = {
    "n_epochs": 3,
    "batch_size": 8,
    "learning_rate_multiplier": 2.0,
}
N_SHOWN: Final = 5
N_AT_ONCE: Final = 8
#: Points by which the tuned model has to beat the base.
N_POINTS: Final = 20.0
POLL_S: Final = 0.2
JOB_S: Final = 900.0
GONE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to the held-out tickets, in their order."""

    model: str
    texts: tuple[str, ...]
    score: float
    """Per cent of the tickets that were routed exactly right."""


def tell(keep: Path | None) -> int:
    """Run the demonstration; return 0 when the tuned model beats the base by 20 points and cancel leaves no process."""
    try:
        import openai
    except ImportError:
        fail("The demonstration speaks through the openai package: pip install 'tunesmith[demo]'")
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-demo-")) if keep is None else keep.absolute()
    if keep is not None and folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty: name a folder that is new for --keep.", 2)
    folder.mkdir(parents=True, exist_ok=True)
    screen = Screen()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with House(folder) as house:
            story = Story(openai.OpenAI(base_url=house.base_url, api_key="any-key"), house, screen, folder)
            good = story.run()
        screen.line(f"Took {time.monotonic() - began:.0f} s.")
    except KeyboardInterrupt:
        screen.line("Interrupted; the server and its jobs are stopped.")
        return 130
    except openai.APIError as error:
        screen.verdict(f"The server answered with an error: {error}", good=False)
        return REFUSED
    finally:
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    screen.line(f"Kept in {folder}." if keep is not None else "Keep the models with `tunesmith demo --keep FOLDER`.")
    return 0 if good else REFUSED


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


class Story:
    """The chapters; each uses only the public API through the client."""

    def __init__(self, client: "OpenAI", house: House, screen: Screen, folder: Path) -> None:
        self._client = client
        self._house = house
        self._screen = screen
        self._folder = folder
        self._tickets = make_tickets()

    def run(self) -> bool:
        """Tell everything; return whether it went as promised."""
        screen, tickets = self._screen, self._tickets
        screen.chapter(f"A server, a client: OpenAI(base_url={self._house.base_url!r})")
        screen.line(f"Base models: {', '.join(model.id for model in self._client.models.list())}")
        screen.chapter(
            f"The base model routes {len(tickets.held_out)} support tickets, with labels and an example in its prompt"
        )
        base = self._ask(BASE)
        self._show(base)
        screen.chapter(f"Tuning it on {len(tickets.training)} tickets, none of which is among those asked")
        training, validation = self._upload(tickets)
        job = self._train(training, validation)
        tuned_model = job.fine_tuned_model or ""
        screen.chapter("Cancelling another job while it trains")
        gone = self._cancel(training)
        screen.chapter(f"The tuned model routes the same {len(tickets.held_out)} tickets")
        tuned = self._ask(tuned_model)
        self._show(base, tuned)
        screen.chapter("What the job left")
        self._leftovers(job)
        screen.chapter("Result")
        gain = tuned.score - base.score
        good = gain >= N_POINTS
        screen.verdict(f"{BASE}: {base.score:.0f} %   tuned: {tuned.score:.0f} %   ({gain:+.0f} points)", good=good)
        if not good:
            screen.verdict(f"That is less than the {N_POINTS:.0f} points expected.", good=False)
        screen.line("Go on: `tunesmith serve`, then OpenAI(base_url='http://127.0.0.1:8000/v1') in the code you have.")
        screen.line("Larger bases: `tunesmith models add NAME FOLDER-OR-HUB-ID --alias gpt-4o-mini`.")
        return good and gone

    def _ask(self, model: str) -> Answers:
        """Ask a model every held-out ticket, several at once, greedily."""

        def one(ticket: Ticket) -> str:
            answer = self._client.chat.completions.create(
                model=model,
                messages=ticket.prompt(),  # pyright: ignore[reportArgumentType] - plain dicts are what users write
                temperature=0,
                max_tokens=40,
            )
            return answer.choices[0].message.content or ""

        held_out = self._tickets.held_out
        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            texts = tuple(pool.map(one, held_out))
        n_right = sum(right(text, ticket) for text, ticket in zip(texts, held_out, strict=True))
        return Answers(model, texts, 100 * n_right / len(held_out))

    def _show(self, *answers: Answers) -> None:
        for index in range(N_SHOWN):
            ticket = self._tickets.held_out[index]
            self._screen.line(f'"{ticket.text}"')
            for given in answers:
                mark = "right" if right(given.texts[index], ticket) else "wrong"
                name = "base " if given.model == BASE else "tuned"
                self._screen.line(f"   {name}  {mark}  {_one_line(given.texts[index])}")
        for given in answers:
            self._screen.line(f"{given.model}: {given.score:.0f} % exactly right")

    def _upload(self, tickets: Tickets) -> tuple[str, str]:
        ids: list[str] = []
        for name, rows in (("training", tickets.training), ("validation", tickets.validation)):
            path = self._folder / f"{name}.jsonl"
            write_rows(path, rows)
            with path.open("rb") as stream:
                file = self._client.files.create(file=stream, purpose="fine-tune")
            self._screen.line(f"uploaded {file.filename}: {file.id}, {len(rows)} rows, {file.bytes:,} bytes")
            ids.append(file.id)
        return ids[0], ids[1]

    def _train(self, training: str, validation: str) -> "FineTuningJob":
        job = self._client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            validation_file=validation,
            suffix="tickets",
            seed=7,
            method={"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}},
        )
        self._house.jobs.append(job.id)
        self._screen.line(f"created {job.id}")
        began = time.monotonic()
        self._follow(job.id, lambda status, _: status in {"succeeded", "failed", "cancelled"}, show=True)
        job = self._client.fine_tuning.jobs.retrieve(job.id)
        if job.status != "succeeded" or job.fine_tuned_model is None:
            fail(f"The job ended as {job.status}: {job.error.message if job.error else 'no reason was given'}")
        self._screen.line(
            f"{job.fine_tuned_model} after {time.monotonic() - began:.0f} s, {job.trained_tokens or 0:,} tokens trained"
        )
        return job

    def _follow(self, job_id: str, enough: Callable[[str, int], bool], *, show: bool) -> None:
        """Read a job's events as they come until `enough(status, step)` says so."""
        seen: set[str] = set()
        step = 0
        limit = time.monotonic() + JOB_S
        with self._screen.bar() as bar:
            while time.monotonic() < limit:
                status = self._client.fine_tuning.jobs.retrieve(job_id).status
                newest_first = self._client.fine_tuning.jobs.list_events(job_id, limit=100)
                fresh = list(itertools.takewhile(lambda event: event.id not in seen, newest_first))
                seen.update(event.id for event in fresh)
                for event in reversed(fresh):
                    data = event.data if isinstance(event.data, dict) else {}
                    if event.type == "metrics" and "train_loss" in data:
                        step = int(str(data["step"]))
                        if show:
                            bar.at(step, int(str(data["total_steps"])), float(str(data["train_loss"])))
                    elif show:
                        self._screen.line(event.message)
                if enough(status, step):
                    return
                time.sleep(POLL_S)
        fail(f"Job {job_id} did not get there within {JOB_S:.0f} s.")

    def _cancel(self, training: str) -> bool:
        """Start a job, cancel it in mid-training, and look from outside whether its processes are gone."""
        job = self._client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}},
        )
        self._house.jobs.append(job.id)
        self._follow(job.id, lambda status, step: step > 0 or status in {"succeeded", "failed"}, show=False)
        n_processes = len(tagged_processes(job.id))
        began = time.monotonic()
        cancelled = self._client.fine_tuning.jobs.cancel(job.id)
        answer_s = time.monotonic() - began
        gone_s = wait_until_gone(job.id, GONE_S)
        self._screen.line(f"{job.id} was training with {n_processes} processes")
        self._screen.line(f"cancel answered {cancelled.status!r} in {1000 * answer_s:.0f} ms")
        if gone_s is None:
            self._screen.verdict(
                f"its processes are still there after {GONE_S:.0f} s: {tagged_processes(job.id)}", good=False
            )
            return False
        self._screen.line(f"the last process was gone {1000 * (answer_s + gone_s):.0f} ms after the call")
        return cancelled.status == "cancelled"

    def _leftovers(self, job: "FineTuningJob") -> None:
        rows: list[Sequence[str]] = []
        for checkpoint in self._client.fine_tuning.jobs.checkpoints.list(job.id).data:
            loss = checkpoint.metrics.full_valid_loss
            rows.append(
                (str(checkpoint.step_number), checkpoint.fine_tuned_model_checkpoint, "" if loss is None else f"{loss:.3f}")
            )
        self._screen.table(("step", "checkpoint", "validation loss"), rows)
        for file_id in job.result_files:
            lines = self._client.files.content(file_id).text.splitlines()
            self._screen.line(f"{file_id}, {len(lines)} lines:")
            for line in lines[:4]:
                self._screen.line(f"   {line}")


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 90 else flat[:87] + "..."

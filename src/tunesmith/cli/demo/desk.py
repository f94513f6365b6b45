"""What every chapter of the demonstration does through the client: upload, tune, follow a job, ask, show answers."""

import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from tunesmith.cli.client import fail
from tunesmith.cli.demo.house import House
from tunesmith.cli.demo.rows import Sets, write_rows
from tunesmith.cli.demo.screen import Screen

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.fine_tuning import FineTuningJob

BASE: Final = "tunesmith-nano"
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
N_AT_ONCE: Final = 8
#: Figures of a step of which the first one there is is shown beside the bar.
FIGURES: Final = {"train_mean_reward": "reward", "train_loss": "loss"}
POLL_S: Final = 0.2
JOB_S: Final = 900.0


class Asked(Protocol):
    """Something that can be asked."""

    @property
    def text(self) -> str:
        """Return what is shown of it."""
        ...

    def prompt(self) -> list[dict[str, str]]:
        """Return the messages that ask it."""
        ...


@dataclass(frozen=True, slots=True)
class Answers:
    """A model's answers to the same questions, in their order, each with a mark."""

    model: str
    texts: tuple[str, ...]
    marks: tuple[str, ...]


class Desk:
    """The client with what belongs to it."""

    def __init__(self, client: "OpenAI", house: House, screen: Screen, folder: Path) -> None:
        self.client = client
        self.house = house
        self.screen = screen
        self._folder = folder

    def upload(self, name: str, sets: Sets[Any]) -> tuple[str, str]:
        """Upload the training and the validation set; return the two ids."""
        (self._folder / name).mkdir()
        return self._put(name, "training", sets.training), self._put(name, "validation", sets.validation)

    def tune(self, suffix: str, files: tuple[str, str], method: dict[str, Any]) -> "FineTuningJob":
        """Tune the base on a training and a validation file, showing the job's events; return the job that succeeded."""
        training, validation = files
        job = self.client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            validation_file=validation,
            suffix=suffix,
            seed=7,
            method=method,  # pyright: ignore[reportArgumentType] - plain dicts are what users write
        )
        self.house.jobs.append(job.id)
        self.screen.line(f"created {job.id}")
        began = time.monotonic()
        self.follow(job.id, lambda status, _: status in ENDED, show=True)
        job = self.client.fine_tuning.jobs.retrieve(job.id)
        if job.status != "succeeded" or job.fine_tuned_model is None:
            fail(f"The job ended as {job.status}: {job.error.message if job.error else 'no reason was given'}")
        self.screen.line(
            f"{job.fine_tuned_model} after {time.monotonic() - began:.0f} s, {job.trained_tokens or 0:,} tokens trained"
        )
        return job

    def follow(self, job_id: str, enough: Callable[[str, int], bool], *, show: bool) -> None:
        """Read a job's events as they come until `enough(status, step)` says so."""
        seen: set[str] = set()
        step = 0
        limit = time.monotonic() + JOB_S
        with self.screen.bar() as bar:
            while time.monotonic() < limit:
                status = self.client.fine_tuning.jobs.retrieve(job_id).status
                newest_first = self.client.fine_tuning.jobs.list_events(job_id, limit=100)
                fresh = list(itertools.takewhile(lambda event: event.id not in seen, newest_first))
                seen.update(event.id for event in fresh)
                for event in reversed(fresh):
                    data = event.data if isinstance(event.data, dict) else {}
                    figure = next((name for name in FIGURES if data.get(name) is not None), None)
                    if event.type == "metrics" and figure is not None:
                        step = int(str(data["step"]))
                        if show:
                            bar.at(step, int(str(data["total_steps"])), f"{FIGURES[figure]} {float(str(data[figure])):.3f}")
                    elif show:
                        self.screen.line(event.message)
                if enough(status, step):
                    return
                time.sleep(POLL_S)
        fail(f"Job {job_id} did not get there within {JOB_S:.0f} s.")

    def ask(self, model: str, asked: Sequence[Asked], mark: Callable[[str, Any], str]) -> Answers:
        """Ask a model everything, several at once, greedily; `mark` gets each answer with what was asked."""

        def one(each: Asked) -> tuple[str, str]:
            answer = self.client.chat.completions.create(
                model=model,
                messages=each.prompt(),  # pyright: ignore[reportArgumentType] - plain dicts are what users write
                temperature=0,
                max_tokens=40,
            )
            text = answer.choices[0].message.content or ""
            return text, mark(text, each)

        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            told = list(pool.map(one, asked))
        return Answers(model, tuple(text for text, _ in told), tuple(mark for _, mark in told))

    def compare(self, models: Sequence[str], asked: Sequence[Asked], mark: Callable[[str, Any], str]) -> tuple[Answers, ...]:
        """Ask several models everything, each question of all of them by one call; otherwise as `ask`."""
        url = f"{self.house.base_url.removesuffix('/v1')}/tunesmith/v1/compare"

        def one(each: Asked) -> list[tuple[str, str]]:
            body = {"models": list(models), "messages": each.prompt(), "temperature": 0, "max_tokens": 40}
            told = self.client.post(url, cast_to=dict[str, Any], body=body)["data"]
            texts = [given["completion"]["choices"][0]["message"]["content"] or "" for given in told]
            return [(text, mark(text, each)) for text in texts]

        with ThreadPoolExecutor(N_AT_ONCE) as pool:
            rows = list(pool.map(one, asked))
        columns = zip(models, zip(*rows, strict=True), strict=True)
        return tuple(Answers(model, tuple(text for text, _ in told), tuple(m for _, m in told)) for model, told in columns)

    def show(self, asked: Sequence[Asked], *answers: Answers) -> None:
        """Show the answers of one model, or of several side by side, to what is asked."""
        for index, each in enumerate(asked):
            self.screen.line(f'"{each.text}"')
            for given in answers:
                name = "base " if given.model == BASE else "tuned"
                self.screen.line(f"   {name}  {given.marks[index]}  {_one_line(given.texts[index])}")

    def _put(self, name: str, part: str, rows: Sequence[Any]) -> str:
        path = self._folder / name / f"{part}.jsonl"
        write_rows(path, (row.row() for row in rows))
        with path.open("rb") as stream:
            file = self.client.files.create(file=stream, purpose="fine-tune")
        self.screen.line(f"uploaded {file.filename}: {file.id}, {len(rows)} rows, {file.bytes:,} bytes")
        return file.id


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 90 else flat[:87] + "..."

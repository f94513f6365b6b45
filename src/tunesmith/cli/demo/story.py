"""What the demonstration does, in order, with the unmodified `openai` package: ask, upload, train, cancel, ask again."""

import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tunesmith.cli.client import REFUSED, fail
from tunesmith.cli.demo.chapters import Outcome, preferences, rewards
from tunesmith.cli.demo.desk import BASE, ENDED, Answers, Desk
from tunesmith.cli.demo.house import House, tagged_processes, wait_until_gone
from tunesmith.cli.demo.screen import Screen
from tunesmith.cli.demo.tickets import Ticket, make_tickets, right

if TYPE_CHECKING:
    from openai.types.fine_tuning import FineTuningJob, SupervisedHyperparametersParam

#: Larger steps than `auto` takes, which is made for bases a thousand times the size of this one.
HYPERPARAMETERS: Final["SupervisedHyperparametersParam"] = {
    "n_epochs": 3,
    "batch_size": 8,
    "learning_rate_multiplier": 2.0,
}
N_SHOWN: Final = 5
#: Points by which the tuned model has to beat the base.
N_POINTS: Final = 20.0
GONE_S: Final = 10.0


def tell(keep: Path | None) -> int:
    """Run the demonstration; return 0 when every job gained what it has to and cancel leaves no process."""
    try:
        import openai
    except ImportError:
        fail("The demonstration speaks through the openai package: pip install 'tunesmith[demo]'")
    folder = Path(tempfile.mkdtemp(prefix="tunesmith-demo-")) if keep is None else keep.absolute()
    if folder.exists() and not folder.is_dir():
        fail(f"{folder} is a file: name a folder that is new for --keep.", 2)
    if keep is not None and folder.exists() and any(folder.iterdir()):
        fail(f"{folder} is not empty: name a folder that is new for --keep.", 2)
    folder.mkdir(parents=True, exist_ok=True)
    screen = Screen()
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with House(folder) as house:
            desk = Desk(openai.OpenAI(base_url=house.base_url, api_key="any-key"), house, screen, folder)
            good = Story(desk).run()
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
    """The chapters in their order; each uses only the public API through the client."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._screen = desk.screen
        self._client = desk.client
        self._tickets = make_tickets()

    def run(self) -> bool:
        """Tell everything; return whether it went as promised."""
        screen, tickets = self._screen, self._tickets
        screen.chapter(f"A server, a client: OpenAI(base_url={self._desk.house.base_url!r})")
        screen.line(f"Base models: {', '.join(model.id for model in self._client.models.list())}")
        screen.chapter(
            f"The base model routes {len(tickets.held_out)} support tickets, with labels and an example in its prompt"
        )
        base = self._ask(BASE)
        self._show(base)
        screen.chapter(f"Tuning it on {len(tickets.training)} tickets, none of which is among those asked (supervised)")
        files = self._desk.upload("tickets", tickets)
        method = {"type": "supervised", "supervised": {"hyperparameters": HYPERPARAMETERS}}
        job = self._desk.tune("tickets", files, method)
        screen.chapter("Cancelling another job while it trains")
        gone = self._cancel(files[0])
        screen.chapter(f"The tuned model routes the same {len(tickets.held_out)} tickets")
        tuned = self._ask(job.fine_tuned_model or "")
        self._show(base, tuned)
        screen.chapter("What the job left")
        self._leftovers(job)
        before, after = _score(base), _score(tuned)
        routed = Outcome(f"supervised     exactly right {before:.0f} % -> {after:.0f} %", after >= before + N_POINTS)
        outcomes = [routed, preferences(self._desk), rewards(self._desk)]
        screen.chapter(f"Result: {BASE} -> tuned, on what was held out")
        for outcome in outcomes:
            screen.verdict(outcome.text if outcome.good else f"{outcome.text}: not what is expected", good=outcome.good)
        screen.line("Go on: `tunesmith serve`, then OpenAI(base_url='http://127.0.0.1:8000/v1') in the code you have.")
        screen.line("Larger bases: `tunesmith models add NAME FOLDER-OR-HUB-ID --alias gpt-4o-mini`.")
        return gone and all(outcome.good for outcome in outcomes)

    def _ask(self, model: str) -> Answers:
        return self._desk.ask(model, self._tickets.held_out, _mark)

    def _show(self, *answers: Answers) -> None:
        self._desk.show(self._tickets.held_out[:N_SHOWN], *answers)
        for given in answers:
            self._screen.line(f"{given.model}: {_score(given):.0f} % exactly right")

    def _cancel(self, training: str) -> bool:
        """Start a job, cancel it in mid-training, and look from outside whether its processes are gone."""
        job = self._client.fine_tuning.jobs.create(
            model=BASE,
            training_file=training,
            method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}},
        )
        self._desk.house.jobs.append(job.id)
        self._desk.follow(job.id, lambda status, step: step > 0 or status in ENDED, show=False)
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


def _mark(text: str, ticket: Ticket) -> str:
    return "right" if right(text, ticket) else "wrong"


def _score(given: Answers) -> float:
    return 100 * given.marks.count("right") / len(given.marks)

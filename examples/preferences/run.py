"""Teach manners by preferences: `python examples/preferences/run.py [BASE_URL]`, with nothing but the openai package."""

import json
import sys
import time
from pathlib import Path

from openai import OpenAI

HERE = Path(__file__).parent
MODEL = "tunesmith-nano"
client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="any-key")
grader = json.loads((HERE / "grader.json").read_text())
questions = [json.loads(line) for line in (HERE / "held_out.jsonl").read_text().splitlines()]


def upload(name: str) -> str:
    """Upload a file that lies here; return its id."""
    with (HERE / name).open("rb") as stream:
        return client.files.create(file=stream, purpose="fine-tune").id


def measure(model: str) -> None:
    """Ask a model everything that was held out, have the answers graded, and tell how it did."""
    scores = {"polite": 0.0, "right": 0.0}
    for question in questions:
        answer = client.chat.completions.create(model=model, messages=question["messages"], temperature=0)
        text = answer.choices[0].message.content or ""
        told = client.fine_tuning.alpha.graders.run(grader=grader, model_sample=text, item={"answer": question["answer"]})
        for name in scores:
            scores[name] += told.sub_rewards[name]
    shares = ", ".join(f"{100 * score / len(questions):.0f} % {name}" for name, score in scores.items())
    print(f"{model}: {shares}; for example: {text}")


measure(MODEL)
job = client.fine_tuning.jobs.create(
    model=MODEL,
    training_file=upload("training.jsonl"),
    validation_file=upload("validation.jsonl"),
    suffix="manners",
    seed=7,
    method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
if job.fine_tuned_model is None:
    sys.exit(f"The job ended as {job.status}: {job.error}")
measure(job.fine_tuned_model)

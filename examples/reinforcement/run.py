"""Raise a reward: `python examples/reinforcement/run.py [BASE_URL]`, with nothing but the openai package."""

import json
import sys
import time
from pathlib import Path

from openai import OpenAI

HERE = Path(__file__).parent
MODEL = "tunesmith-nano"
client = OpenAI(base_url=sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1", api_key="any-key")
grader = json.loads((HERE / "grader.json").read_text())
sums = [json.loads(line) for line in (HERE / "held_out.jsonl").read_text().splitlines()]


def upload(name: str) -> str:
    """Upload a file that lies here; return its id."""
    with (HERE / name).open("rb") as stream:
        return client.files.create(file=stream, purpose="fine-tune").id


def measure(model: str) -> None:
    """Ask a model everything that was held out, have the answers graded, and tell how it did."""
    total = 0.0
    for item in sums:
        answer = client.chat.completions.create(model=model, messages=item["messages"], temperature=0)
        text = answer.choices[0].message.content or ""
        total += client.fine_tuning.alpha.graders.run(grader=grader, model_sample=text, item=item).reward
    print(f"{model}: mean reward {total / len(sums):.2f}; for example: {text}")


measure(MODEL)
job = client.fine_tuning.jobs.create(
    model=MODEL,
    training_file=upload("training.jsonl"),
    validation_file=upload("validation.jsonl"),
    suffix="sums",
    seed=7,
    method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"eval_samples": 1}}},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(1)
    job = client.fine_tuning.jobs.retrieve(job.id)
if job.fine_tuned_model is None:
    sys.exit(f"The job ended as {job.status}: {job.error}")
measure(job.fine_tuned_model)

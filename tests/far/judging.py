"""What tests of judges share: models upstream, graders that ask them, pictures to show them."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai

from far import N_CACHED, N_COMPLETION, N_PROMPT, FarModel
from tunesmith.services.abilities import red_png

ROOT = "/v1/fine_tuning/alpha/graders"
MODELS = "/tunesmith/v1/models"
USAGE = {
    "prompt_tokens": N_PROMPT,
    "completion_tokens": N_COMPLETION,
    "total_tokens": N_PROMPT + N_COMPLETION,
    "cached_tokens": N_CACHED,
}
SEEN = {
    "judge": FarModel(images=True, audio=True, efforts=("low", "high")),
    "blind": FarModel(),
    "plain": FarModel(structured=False),
    "older": FarModel(limit="max_tokens"),
    "vectors": FarModel(chat=False, embeddings=True),
}
ASKED: Any = [
    {"role": "developer", "content": "Grade the answer."},
    {"role": "user", "content": ["Expected: {{ item.answer }}", {"type": "input_text", "text": "{{ sample.output_text }}"}]},
    {"role": "assistant", "content": {"type": "output_text", "text": "I see."}},
]
SCORE: Any = {"type": "score_model", "name": "score", "model": "judge", "input": ASKED}
LABEL: Any = {
    "type": "label_model", "name": "label", "model": "judge", "input": ASKED, "labels": ["good", "bad"],
    "passing_labels": ["good"],
}  # fmt: skip
COSINE: Any = {
    "type": "text_similarity", "name": "near", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "evaluation_metric": "cosine",
}  # fmt: skip
ITEM = {"answer": "42"}
FLAG = "model_grader_server_error"


class Gallery(ThreadingHTTPServer):
    """Serves pictures by path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Shown)
        self.pictures = {"/red.png": red_png(), "/page.html": b"<html>"}

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class _Shown(BaseHTTPRequestHandler):
    server: Gallery

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.end_headers()
        self.wfile.write(self.server.pictures[self.path])


def run(client: openai.OpenAI, grader: Any, sample: str = "42", item: Any = None) -> dict[str, Any]:
    return client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item or ITEM).to_dict(
        warnings=False
    )


def flags(answer: dict[str, Any]) -> dict[str, str | None]:
    """Return the flags that are set, with their details."""
    errors = answer["metadata"]["errors"]
    return {name: errors[f"{name}_details"] for name, value in errors.items() if value is True}

"""A vLLM server played by the tests: adapters loaded and unloaded at run time as its documentation has it, and forgotten."""

import argparse
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from far import USAGE, said

MODEL = "Qwen/Tiny"
EFFORTS = ("none", "low", "medium", "high")


class VllmServer(ThreadingHTTPServer):
    """One model, and the adapters that are loaded on it. It sees the folder `beyond` under the path `mount`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *, port: int = 0, model: str = MODEL) -> None:
        super().__init__(("127.0.0.1", port), _Answer)
        self.model = model
        self.key: str | None = None
        self.clear()

    def clear(self) -> None:
        """Be a server that was started just now, with the flags that adapters need, and has been asked for nothing."""
        self.adapters: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.told: list[tuple[str, str]] = []
        self.updating = self.healthy = True
        self.max_lora_rank = 16
        self.mount: tuple[str, Path] | None = None
        #: Loads wait for it.
        self.gate = threading.Event()
        self.gate.set()

    def restart(self) -> None:
        self.adapters.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def seen(self, path: str) -> Path:
        if self.mount is None:
            return Path(path)
        under, folder = self.mount
        return folder / Path(path).relative_to(under) if Path(path).is_relative_to(under) else Path("/nowhere")


class _Answer(BaseHTTPRequestHandler):
    server: VllmServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        if self.path == "/health":  # needs no key, and says nothing
            self.send(200 if self.server.healthy else 503, b"", "text/plain")
        elif not self._knows_key():
            return
        elif self.path == "/v1/models":
            base = self.server.model
            rows = [{"id": base, "object": "model", "owned_by": "vllm", "root": base, "parent": None}]
            loaded = self.server.adapters.items()
            rows += [{"id": name, "object": "model", "root": at, "parent": base} for name, at in loaded]
            self.send(200, {"object": "list", "data": rows})
        else:
            self.error(404, "Not Found", "Not Found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._knows_key():
            return
        if self.path == "/v1/load_lora_adapter" and self.server.updating:
            self._load(body)
        elif self.path == "/v1/unload_lora_adapter" and self.server.updating:
            self._unload(body)
        elif self.path == "/v1/chat/completions":
            self._chat(body)
        elif self.path == "/v1/completions":
            self._go_on(body)
        else:
            self.error(404, "Not Found", "Not Found")

    def _load(self, body: dict[str, Any]) -> None:
        name, path = body.get("lora_name"), body.get("lora_path")
        self.server.gate.wait(60)
        if not name or not path:
            self.error(400, "Both 'lora_name' and 'lora_path' must be provided.", "InvalidUserInput")
            return
        self.server.told.append(("load", name))
        if name in self.server.adapters:
            in_place = "If you want to load the adapter in place, set 'load_inplace' to True."
            self.error(400, f"The lora adapter '{name}' has already been loaded. {in_place}", "InvalidUserInput")
            return
        config = self.server.seen(path) / "adapter_config.json"
        if not config.is_file():
            self.error(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
            return
        told = json.loads(config.read_text())
        if told["r"] > self.server.max_lora_rank:
            reason = f"LoRA rank {told['r']} is greater than max_lora_rank {self.server.max_lora_rank}."
            self.error(500, f"Call to add_lora method failed: Worker failed with error '{reason}'", "InternalServerError")
        elif told.get("modules_to_save") or told.get("use_dora") or told.get("bias", "none") != "none":
            self.error(400, "vLLM does not support this adapter.", "BadRequestError")
        else:
            self.server.adapters[name] = path
            self.send(200, f"Success: LoRA adapter '{name}' added successfully.".encode(), "text/plain")

    def _unload(self, body: dict[str, Any]) -> None:
        name = body["lora_name"]
        self.server.told.append(("unload", name))
        if self.server.adapters.pop(name, None) is None:
            self.error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        else:
            self.send(200, f"Success: LoRA adapter '{name}' removed successfully.".encode(), "text/plain")

    def _chat(self, body: dict[str, Any]) -> None:
        model = body["model"]
        self.server.asked.append(body)
        kinds = {part["type"] for said in body["messages"] if isinstance(said["content"], list) for part in said["content"]}
        if model != self.server.model and model not in self.server.adapters:
            self.error(404, f"The model `{model}` does not exist. Valid aliases: {self.server.model}.", "NotFoundError")
            return
        if kinds - {"text"}:
            self.error(400, f"{MODEL} is not a multimodal model", "BadRequestError")
            return
        if body.get("reasoning_effort", "none") not in EFFORTS:
            self.error(400, f"Input should be one of {EFFORTS}", "BadRequestError")
            return
        text = model
        if "response_format" in body:
            form = body["response_format"]["json_schema"]
            steps = [{"description": "I looked", "conclusion": "so it is"}]
            text = json.dumps({"letter": "q"} if form["name"] == "letter" else {"steps": steps, "result": 0.25})
        self._say(body, model, text)

    def _go_on(self, body: dict[str, Any]) -> None:
        model, prompt = body["model"], body["prompt"]
        self.server.asked.append(body)
        if model != self.server.model and model not in self.server.adapters:
            self.error(404, f"The model `{model}` does not exist. Valid aliases: {self.server.model}.", "NotFoundError")
            return
        texts = [prompt] if isinstance(prompt, str) else prompt
        n = body.get("n", 1)
        self._begin()
        for number in range(len(texts) * n):
            said = f"{texts[number // n]}{model}" if body.get("echo") else model
            self._event({"id": "cmpl-1", "model": model, "choices": [scored(number, said, body.get("logprobs"))]})
            end = {"index": number, "text": "", "logprobs": None, "finish_reason": "length"}
            self._event({"id": "cmpl-1", "model": model, "choices": [end]})
        self._event({"id": "cmpl-1", "choices": [], "usage": USAGE})
        self.wfile.write(b"data: [DONE]\n\n")

    def _say(self, body: dict[str, Any], model: str, text: str) -> None:
        told = {"id": "chatcmpl-1", "model": model}
        if not body.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            self.send(200, {**told, "object": "chat.completion", "choices": [choice], "usage": USAGE})
            return
        self._begin()
        for chunk in [*said(text), {"choices": [], "usage": USAGE}]:
            self._event({**told, **chunk})
        self.wfile.write(b"data: [DONE]\n\n")

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.end_headers()
        self.close_connection = True

    def _event(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _knows_key(self) -> bool:
        if self.server.key is None or self.headers.get("authorization") == f"Bearer {self.server.key}":
            return True
        self.send(401, {"error": "Unauthorized"})
        return False

    def error(self, status: int, message: str, kind: str) -> None:
        self.send(status, {"error": {"message": message, "type": kind, "param": None, "code": status}})

    def send(self, status: int, body: object, kind: str = "application/json") -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def scored(number: int, text: str, logprobs: int | None) -> dict[str, Any]:
    """Return a choice's text, and the halves of it as its tokens: of the first one nothing is known."""
    middle = len(text) // 2
    told = {
        "tokens": [text[:middle], text[middle:]],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {text[middle:]: -0.5, " €": -2.0}],
        "text_offset": [0, middle],
    }
    return {"index": number, "text": text, "logprobs": None if logprobs is None else told, "finish_reason": None}


@contextmanager
def vllm_server() -> Iterator[VllmServer]:
    """Serve for the length of a block."""
    server = VllmServer()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()


#: A Python that has vLLM, as the setting `vllm_python` names one: it runs this file.
PYTHON = """#!/bin/sh
[ "$1 $2" = "-m vllm.entrypoints.openai.api_server" ] || exit 9
shift 2
PYTHONPATH={tests} exec {python} -m far.vllm "$@"
"""


def vllm_python(folder: Path) -> Path:
    """Write a Python that has this vLLM."""
    file = folder / "python"
    file.write_text(PYTHON.format(tests=Path(__file__).parent.parent, python=sys.executable))
    file.chmod(0o755)
    return file


def main() -> None:
    """Serve as vLLM does that is started by its command line; it needs a child, and is said to break by a flag of ours."""
    flags = argparse.ArgumentParser()
    for name in ("model", "served-model-name", "host", "uvicorn-log-level", "tool-call-parser"):
        flags.add_argument(f"--{name}")
    for name in ("port", "max-lora-rank", "max-loras", "max-cpu-loras", "max-model-len"):
        flags.add_argument(f"--{name}", type=int)
    for name in ("enable-lora", "enable-auto-tool-choice", "broken"):
        flags.add_argument(f"--{name}", action="store_true")
    told = flags.parse_args()
    if told.broken:
        sys.exit("ValueError: no device has room for the model")
    assert (Path(told.model) / "config.json").is_file()
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])  # as the engine's own process
    server = VllmServer(port=told.port, model=told.served_model_name)
    server.key = os.environ["VLLM_API_KEY"]
    server.updating = told.enable_lora and os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == "True"
    server.max_lora_rank = told.max_lora_rank
    server.serve_forever()


if __name__ == "__main__":
    main()

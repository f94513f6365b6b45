"""A validation of a job's files, whole: real files in a real store, a real tokenizer, what is reported in the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tunesmith.blobs.local import LocalBlobs
from tunesmith.core.channel import Task
from tunesmith.domain.tasks import ValidateSpec
from tunesmith.worker import validate

CONTEXT = 64
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% elif m.content == 'refuse me' %}{{ raise_exception('not that') }}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Told:
    """What a worker reported."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.done: dict[str, Any] | None = None
        self.error: tuple[str, str | None, str] | None = None

    def message(self, text: str, *, level: str = "info", key: str | None = None) -> None:
        self.messages.append(text)

    def validated(self, data: dict[str, Any]) -> None:
        self.done = data

    def failed(self, code: str, param: str | None, message: str) -> None:
        self.error = code, param, message


class Asked:
    """Nobody asks a validation to pause."""

    def pause_asked(self) -> bool:
        return False


@pytest.fixture(scope="module")
def byte_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        vocab_size=258,
        show_progress=False,
    )
    tokenizer.train_from_iterator(["a"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    return folder


@pytest.fixture
def job(byte_base: Path, tmp_path: Path) -> Callable[..., Told]:
    """Return a function that validates rows for a job and tells what was reported."""
    blobs = LocalBlobs(tmp_path / "blobs")

    def put(key: str, rows: list[Any]) -> None:
        lines = [item if isinstance(item, bytes) else json.dumps(item).encode() for item in rows]
        blobs.put(key, [b"\n".join(lines)])

    def validate_rows(
        training: list[Any] | None,
        validation: list[Any] | None = None,
        *,
        hyperparameters: dict[str, Any] | None = None,
        context: int = CONTEXT,
        clock: Any = None,
        store: Any = None,
        folder: Path = byte_base,
        has_validation: bool | None = None,
        longer_bases: dict[str, int] | None = None,
        method: str = "supervised",
    ) -> Told:
        if training is not None:
            put("files/file-t", training)
        if validation is not None:
            put("files/file-v", validation)
        has_validation = validation is not None if has_validation is None else has_validation
        spec = ValidateSpec(
            method=method,
            method_config={"hyperparameters": hyperparameters or {}},
            base_path=str(folder),
            context_length=context,
            blobs=blobs.url,
            training_file="file-t",
            training_key="files/file-t",
            validation_file="file-v" if has_validation else None,
            validation_key="files/file-v" if has_validation else None,
            max_line_bytes=2000,
            base_name="tiny",
            longer_bases=longer_bases or {},
            created_at=1_000_000.0,
        )
        told = Told()
        task = Task("validate", "ftjob-1", 1, "token", "socket", str(tmp_path), spec.to_mapping())
        validate.run(task, spec, told, Asked(), store(blobs) if store else blobs, clock=clock)
        assert (told.done is None) != (told.error is None)
        return told

    return validate_rows

"""What a reinforcement job is rewarded for, looked at before it is created: its grader, its answers' form, its rows."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from anyio import to_thread

from tunesmith.core.errors import InvalidRequest
from tunesmith.core.settings import Settings
from tunesmith.data.jsonl import NotJson, parse_object, read_lines
from tunesmith.data.response_format import schema_of
from tunesmith.domain.file import File
from tunesmith.domain.job import CreateJob
from tunesmith.domain.ports import Blobs
from tunesmith.domain.scope import Project
from tunesmith.graders.grader import Grader
from tunesmith.graders.template import Path, missing, paths
from tunesmith.services.grading import Grading
from tunesmith.services.jobs import usable_files
from tunesmith.store.session import Database

GRADER: Final = "method.reinforcement.grader"
RESPONSE_FORMAT: Final = "method.reinforcement.response_format"
#: Rows of each file that are looked at for what the grader asks of them; validation of the whole file comes later.
N_ROWS: Final = 5
#: What a row's own columns stand beside.
RESERVED: Final = frozenset({"messages", "tools", "parallel_tool_calls"})
_N_SHOWN: Final = 20


class Rewards:
    """Checks what can be checked at the door, so that nobody waits in a queue for a job that cannot be graded."""

    def __init__(self, *, db: Database, blobs: Blobs, grading: Grading, settings: Settings) -> None:
        self._db = db
        self._blobs = blobs
        self._grading = grading
        self._max_line_bytes = settings.max_line_bytes

    async def check(self, scope: Project, request: CreateJob, grader: Grader) -> None:
        """See to it that the job's answers can be kept to their form, and graded here and with its rows.

        Raises:
            InvalidRequest: they cannot; the error names the field and the way out. Files are looked at first.
            NotAvailable: this release cannot.
        """
        files = await to_thread.run_sync(self._files, scope, request)
        await to_thread.run_sync(_can_be_kept_to, request.method_config.get("response_format"))
        _answers_have(grader, request.method_config.get("response_format"))
        await to_thread.run_sync(self._rows_have, grader, files)
        await self._grading.check(scope, grader, param=GRADER)

    def _files(self, scope: Project, request: CreateJob) -> dict[str, File]:
        with self._db.read() as tx:
            return usable_files(tx, scope, request)

    def _rows_have(self, grader: Grader, files: dict[str, File]) -> None:
        templates = grader.templates()
        for param, file in files.items():
            for number, item in self.first_items(file):
                for field, text in templates.items():
                    for path in missing([text], item):
                        words = param.replace("_", " ")
                        raise InvalidRequest(
                            f"'{GRADER}.{field}' asks for {{{{ {path} }}}}, and line {number} of the {words} {file.id} has "
                            f"no {path}: {_columns(item)}. Give every row that column, or ask for one that every row has.",
                            param=f"{GRADER}.{field}",
                        )

    def first_items(self, file: File) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the first rows' line numbers and own columns; what is no such row is for the validation to tell."""
        try:
            with self._blobs.open(file.key) as stream:
                for line in islice(read_lines(stream, max_line_bytes=self._max_line_bytes), N_ROWS):
                    row = parse_object(line, max_line_bytes=self._max_line_bytes)
                    if "messages" in row:
                        yield line.number, {key: value for key, value in row.items() if key not in RESERVED}
        except (NotJson, FileNotFoundError):
            return


def _can_be_kept_to(response_format: dict[str, Any] | None) -> None:
    from tunesmith.data.grammar import GrammarRefused, grammar_of  # noqa: PLC0415 - as in chat

    schema = schema_of(response_format)
    try:
        if schema is not None:
            grammar_of(schema)
    except GrammarRefused as error:
        raise InvalidRequest(
            f"'{RESPONSE_FORMAT}': answers cannot be kept to this schema: {error}.", param=RESPONSE_FORMAT
        ) from error


def _answers_have(grader: Grader, response_format: dict[str, Any] | None) -> None:
    """Refuse paths into the sample that no answer of this job will have."""
    is_text = schema_of(response_format) is None
    for field, text in grader.templates().items():
        for path in paths(text):
            name = path.steps[0] if path.namespace == "sample" and path.steps else None
            if name == "output_json" and is_text:
                why = (
                    f"has no {path} where answers are free text: give '{RESPONSE_FORMAT}' the JSON schema that they are to "
                    "keep to, or read {{ sample.output_text }}"
                )
            elif name == "output_audio":
                why = f"has no {path}: the models of this server answer with text, {{{{ sample.output_text }}}}"
            else:
                continue
            raise InvalidRequest(
                f"'{GRADER}.{field}' asks for {{{{ {path} }}}}, and a sample {why}.", param=f"{GRADER}.{field}"
            )


def _columns(item: dict[str, Any]) -> str:
    if not item:
        return "it has nothing beside its messages"
    names = [str(Path("item", (name,))) for name in item]
    return f"it has {', '.join(names[:_N_SHOWN])}{', …' * (len(names) > _N_SHOWN)}"

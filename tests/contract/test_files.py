"""Files through the official client, sync and async, and through raw HTTP for what no client sends."""

import base64
import io
import time
from collections.abc import Callable
from typing import Any

import httpx2
import openai
import pytest
from structlog.testing import capture_logs

from tunesmith.blobs.local import LocalBlobs
from tunesmith.domain.file import File
from tunesmith.store import files

PURPOSES = ["fine-tune", "assistants", "batch", "user_data", "vision", "evals"]


def upload(client: openai.OpenAI, content: bytes, name: str = "rows.jsonl", **more: Any) -> Any:
    return client.files.create(file=(name, io.BytesIO(content)), purpose=more.pop("purpose", "fine-tune"), **more)


def form(*parts: tuple[str, str | None, bytes]) -> dict[str, Any]:
    """Return a raw multipart body of (name, filename, content) in this order."""
    pieces = []
    for name, filename, content in parts:
        told = f'; filename="{filename}"' if filename is not None else ""
        pieces.append(
            b'--b0\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), told.encode(), content)
        )
    return {"content": b"".join(pieces) + b"--b0--\r\n", "headers": {"content-type": "multipart/form-data; boundary=b0"}}


def test_a_file_goes_round(
    client: openai.OpenAI, http: httpx2.Client, rows: Callable[[int], bytes], conforms: Callable[[object, str], None]
) -> None:
    before = int(time.time())
    file = upload(client, rows(12))
    conforms(file, "OpenAIFile")
    assert list(http.get(f"/v1/files/{file.id}").json()) == [
        "object", "id", "purpose", "filename", "bytes", "created_at", "expires_at", "status", "status_details"
    ]  # fmt: skip
    assert file.id.startswith("file-")
    assert (file.filename, file.bytes, file.status, file.purpose) == ("rows.jsonl", len(rows(12)), "processed", "fine-tune")
    assert before <= file.created_at <= time.time() + 1
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == rows(12)
    assert client.files.wait_for_processing(file.id) == file
    deleted = client.files.delete(file.id)
    conforms(deleted, "DeleteFileResponse")
    assert deleted.to_dict() == {"object": "file", "deleted": True, "id": file.id}
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)


@pytest.mark.anyio
async def test_a_file_goes_round_async(async_client: openai.AsyncOpenAI, rows: Callable[[int], bytes]) -> None:
    file = await async_client.files.create(file=("rows.jsonl", io.BytesIO(rows(10))), purpose="fine-tune")
    assert (await async_client.files.retrieve(file.id)).bytes == len(rows(10))
    assert (await async_client.files.wait_for_processing(file.id)).status == "processed"
    assert (await async_client.files.content(file.id)).content == rows(10)
    async with async_client.files.with_streaming_response.content(file.id) as streamed:
        assert b"".join([piece async for piece in streamed.iter_bytes(100)]) == rows(10)
    assert file.id in [listed.id async for listed in async_client.files.list(purpose="fine-tune", order="asc", limit=1)]
    with pytest.raises(openai.BadRequestError) as caught:
        await async_client.files.create(file=("rows.jsonl", b"no"), purpose="fine-tune")
    assert caught.value.param == "file"
    assert (await async_client.files.delete(file.id)).deleted


@pytest.mark.parametrize("purpose", PURPOSES)
def test_every_purpose_of_an_upload_is_taken(client: openai.OpenAI, rows: Callable[[int], bytes], purpose: str) -> None:
    assert upload(client, rows(1), purpose=purpose).purpose == purpose


def test_a_wrong_purpose_is_refused_in_the_recorded_words(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, rows(10), purpose="tuning")
    assert caught.value.body == {
        "message": f"'tuning' is not one of {PURPOSES} - 'purpose'",
        "type": "invalid_request_error",
        "param": "purpose",
        "code": None,
    }


def test_an_unknown_file_is_a_404_in_the_recorded_words(client: openai.OpenAI) -> None:
    for call in (client.files.retrieve, client.files.delete, client.files.content):
        with pytest.raises(openai.NotFoundError) as caught:
            call("file-doesnotexist")
        assert caught.value.body == {
            "message": "No such File object: file-doesnotexist",
            "type": "invalid_request_error",
            "param": "id",
            "code": None,
        }


def test_expiry_is_taken_from_brackets_and_shown(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    file = upload(client, rows(10), expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600


@pytest.mark.parametrize(
    ("expires_after", "param"),
    [
        ({"anchor": "created_at", "seconds": 3599}, "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": 2_592_001}, "expires_after.seconds"),
        ({"anchor": "created_at", "seconds": "soon"}, "expires_after.seconds"),
        ({"anchor": "now", "seconds": 3600}, "expires_after.anchor"),
        ({"anchor": "created_at"}, "expires_after.seconds"),
    ],
)
def test_a_wrong_expiry_is_refused_by_its_field(
    client: openai.OpenAI, rows: Callable[[int], bytes], expires_after: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, rows(10), expires_after=expires_after)
    assert caught.value.param == param


def test_files_are_listed_by_pages_in_both_orders_and_by_purpose(
    fresh: Any, rows: Callable[[int], bytes], conforms: Callable[[object, str], None]
) -> None:
    with openai.OpenAI(base_url=fresh.base_url, api_key="any", max_retries=0) as client:
        ids = [upload(client, rows(10), purpose=purpose).id for purpose in ("fine-tune", "vision", "fine-tune", "fine-tune")]
        assert [file.id for file in client.files.list()] == ids[::-1]
        assert [file.id for file in client.files.list(order="asc")] == ids
        assert [file.id for file in client.files.list(purpose="vision")] == [ids[1]]
        page = client.files.list(limit=3)
        conforms(page, "ListFilesResponse")
        assert (page.has_more, page.to_dict()["first_id"], page.to_dict()["last_id"]) == (True, ids[3], ids[1])
        assert [file.id for file in page] == ids[::-1]
        rest = client.files.list(limit=3, after=ids[1])
        assert ([file.id for file in rest.data], rest.has_more) == ([ids[0]], False)
        with pytest.raises(openai.BadRequestError) as caught:
            client.files.list(after="file-unknown")
        assert caught.value.param == "after"


@pytest.mark.parametrize("query", ["limit=0", "limit=10001", "limit=many", "order=up", "colour=red"])
def test_a_wrong_query_is_refused_by_its_name(http: httpx2.Client, query: str) -> None:
    answer = http.get(f"/v1/files?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.split("=")[0])


def test_a_query_that_only_names_the_api_version_says_nothing(http: httpx2.Client) -> None:
    assert http.get("/v1/files?api-version=preview").status_code == 200


def test_a_name_in_any_script_is_kept(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    file = upload(client, rows(10), name="データ é.jsonl")
    assert file.filename == "データ é.jsonl"
    assert client.files.content(file.id).read() == rows(10)


def test_fields_may_come_in_any_order(http: httpx2.Client, rows: Callable[[int], bytes]) -> None:
    answer = http.post("/v1/files", **form(("file", "late.jsonl", rows(10)), ("purpose", None, b"fine-tune")))
    assert (answer.status_code, answer.json()["filename"], answer.json()["bytes"]) == (200, "late.jsonl", len(rows(10)))


def test_a_file_without_a_name_gets_one(http: httpx2.Client, rows: Callable[[int], bytes]) -> None:
    answer = http.post("/v1/files", **form(("purpose", None, b"fine-tune"), ("file", None, rows(10))))
    assert (answer.status_code, answer.json()["filename"]) == (200, "file")


def test_what_is_not_jsonl_is_refused_at_upload(client: openai.OpenAI) -> None:
    for content in (b"Dear model,\nlearn!\n", b'["a list"]\n', b'{"messages": [}\n', b"\xff\xfe\n"):
        with pytest.raises(openai.BadRequestError) as caught:
            upload(client, content)
        message = "Expected file to have JSONL format, where every line is a valid JSON dictionary."
        assert caught.value.body["message"].startswith(message)  # type: ignore[index]


def test_an_empty_file_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, b"")
    assert caught.value.param == "file"
    assert "0 bytes arrived" in caught.value.message


def test_a_file_over_the_limit_is_a_413_that_the_client_gets_to_read(client: openai.OpenAI, served: Any) -> None:
    limit = served.composed.settings.max_file_bytes
    before = len(client.files.list(limit=10000).data)
    for n_bytes in (limit + 1, limit + 16 * 1024 * 1024):
        with pytest.raises(openai.APIStatusError) as caught:
            upload(client, b'{"messages": []}\n' * (n_bytes // 17 + 1))
        assert caught.value.status_code == 413
        assert str(limit) in caught.value.message
    assert len(client.files.list(limit=10000).data) == before


def test_a_full_disk_is_told_once_and_leaves_nothing(
    client: openai.OpenAI, rows: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(client.files.list().data)
    monkeypatch.setenv("TUNESMITH_FAILPOINTS", "blobs.write=raise")
    with capture_logs() as logs, pytest.raises(openai.APIStatusError) as caught:
        upload(client.with_options(max_retries=2), rows(10))
    monkeypatch.delenv("TUNESMITH_FAILPOINTS")
    assert (caught.value.status_code, caught.value.code) == (507, "storage_full")
    assert "Free space there, then try again" in caught.value.message
    assert [entry["event"] for entry in logs].count("storage.full") == 1
    assert len(client.files.list().data) == before
    assert upload(client, rows(10)).status == "processed"


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (form(("purpose", None, b"fine-tune")), "Missing required parameter: 'file'."),
        (form(("file", "a.jsonl", b"{}\n")), "Missing required parameter: 'purpose'."),
        (
            form(("purpose", None, b"fine-tune"), ("file", "a", b"{}"), ("colour", None, b"red")),
            "Unknown parameter: 'colour'.",
        ),
        (
            form(("purpose", None, b"fine-tune"), ("file", "a", b"{}"), ("file", "b", b"{}")),
            "'file' is given more than once.",
        ),
        (
            form(("purpose", None, b"fine-tune"), ("purpose[a]", None, b"x"), ("file", "a", b"{}")),
            "'purpose[a]' is given more than once.",
        ),
        (
            form(("expires_after[anchor]", None, b"x"), ("expires_after", None, b"x"), ("file", "a", b"{}")),
            "'expires_after' is given more than once.",
        ),
        (form(("purpose", None, b"x" * 9000), ("file", "a", b"{}")), "'purpose' is longer than 8192 bytes."),
        (form(*[(f"f{i}", None, b"x") for i in range(40)]), "A form holds at most 32 fields."),
        ({"json": {"purpose": "fine-tune"}}, "A file is uploaded as multipart/form-data"),
        (
            {
                "content": b'--b0\r\nContent-Disposition: form-data; name="file"\r\n\r\nhalf',
                "headers": {"content-type": "multipart/form-data; boundary=b0"},
            },
            "ended before",
        ),
        ({"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=b0"}}, "cannot be read"),
        ({"content": b"", "headers": {"content-type": f"multipart/form-data; boundary={'b' * 300}"}}, "cannot be read"),
        (
            {
                "content": b"--b0\r\nX-Y: z\r\n\r\nw\r\n--b0--\r\n",
                "headers": {"content-type": "multipart/form-data; boundary=b0"},
            },
            "needs a Content-Disposition",
        ),
    ],
)
def test_a_malformed_form_is_refused_with_its_reason(http: httpx2.Client, request_: Any, told: str) -> None:
    answer = http.post("/v1/files", **request_)
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]


def test_content_is_served_as_bytes_with_its_name(client: openai.OpenAI, http: httpx2.Client) -> None:
    content = bytes(range(256)) * 8000
    file = upload(client, content, name='a "b".bin', purpose="user_data")
    answer = http.get(f"/v1/files/{file.id}/content")
    assert answer.content == content
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%22b%22.bin"


def test_result_files_are_plain_unless_the_server_is_told_to_encode_them(open_house: Any, tmp_path: Any) -> None:
    table = b"step,train_loss\n" + b"".join(b"%d,0.5\n" % step for step in range(100_000))
    for encoded in (False, True):
        with open_house(tmp_path / str(encoded), results_base64=encoded) as served:
            add_results(served, table)
            with openai.OpenAI(base_url=served.base_url, api_key="any", max_retries=0) as client:
                [file] = client.files.list(purpose="fine-tune-results").data
                read = client.files.content(file.id).read()
                other = client.files.create(file=("a.bin", b"abcd"), purpose="user_data")
                assert client.files.content(other.id).read() == b"abcd"
        assert (base64.b64decode(read, validate=True) if encoded else read) == table


def add_results(served: Any, table: bytes) -> None:
    """Store a result file as a finished job does."""
    folder, db = served.composed.folder.path, served.composed.db
    stored = LocalBlobs(folder / "blobs").put("files/file-results", [table])
    file = File(
        id="file-results",
        project_id=served.scope.project_id,
        organization_id=served.scope.organization_id,
        created_at=1.0,
        filename="step_metrics.csv",
        purpose="fine-tune-results",
        bytes=stored.bytes,
        sha256=stored.sha256,
        key="files/file-results",
    )
    with db.begin() as tx:
        files.add(tx, served.scope, file)

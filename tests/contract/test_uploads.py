"""Uploads in parts through the official client, and through raw HTTP for what no client sends."""

import hashlib
import io
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from tunesmith.core.clock import SystemClock
from tunesmith.domain.scope import Project
from tunesmith.services.uploads import LIFE_S
from tunesmith.store import uploads


def begin(client: openai.OpenAI, n_bytes: int, **more: Any) -> Any:
    more = {"filename": "rows.jsonl", "purpose": "fine-tune", "mime_type": "application/jsonl", **more}
    return client.uploads.create(bytes=n_bytes, **more)


def pieces(content: bytes, n: int) -> list[bytes]:
    size = -(-len(content) // n)
    return [content[start : start + size] for start in range(0, len(content), size)]


def stored(served: Any, upload: str) -> list[str]:
    return list((served.composed.folder.path / "blobs" / "uploads" / upload).glob("*"))


def test_an_upload_becomes_an_ordinary_file(
    served: Any,
    client: openai.OpenAI,
    http: httpx2.Client,
    rows: Callable[[int], bytes],
    conforms: Callable[[object, str], None],
) -> None:
    content = rows(40)
    upload = begin(client, len(content))
    conforms(upload, "Upload")
    assert (upload.status, upload.bytes, upload.purpose) == ("pending", len(content), "fine-tune")
    assert upload.expires_at - upload.created_at == LIFE_S
    assert "file" not in upload.to_dict()
    assert (upload.id[:7], len(upload.id)) == ("upload_", 39)
    # in any order, and at the same time
    order = list(enumerate(pieces(content, 5)))
    random.Random(3).shuffle(order)
    with ThreadPoolExecutor(5) as pool:
        sent = dict(pool.map(lambda each: (each[0], client.uploads.parts.create(upload.id, data=each[1])), order))
    for part in sent.values():
        conforms(part, "UploadPart")
        assert (part.upload_id, part.object, len(part.id)) == (upload.id, "upload.part", 37)
    done = client.uploads.complete(
        upload.id,
        part_ids=[sent[index].id for index in range(5)],
        md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
    )
    conforms(done, "Upload")
    assert done.status == "completed"
    assert done.file is not None
    conforms(done.file, "OpenAIFile")
    assert client.files.content(done.file.id).read() == content
    assert client.files.retrieve(done.file.id) == done.file
    assert stored(served, upload.id) == []
    job = client.fine_tuning.jobs.create(model="tunesmith-nano", training_file=done.file.id)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    # an answer that was lost is asked for again
    again = client.uploads.complete(upload.id, part_ids=[sent[index].id for index in range(5)])
    assert again == done
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.parts.create(upload.id, data=b"more")
    with pytest.raises(openai.BadRequestError, match="is completed"):
        client.uploads.cancel(upload.id)


def test_the_clients_own_helper_uploads_in_chunks(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    content = rows(200)
    told: Any = {"filename": "big.jsonl", "bytes": len(content), "mime_type": "application/jsonl", "purpose": "fine-tune"}
    done = client.uploads.upload_file_chunked(file=content, part_size=999, **told)
    assert done.status == "completed"
    assert done.file is not None
    assert client.files.content(done.file.id).read() == content
    assert done.file.filename == "big.jsonl"


@pytest.mark.anyio
async def test_an_upload_goes_round_async(async_client: openai.AsyncOpenAI, rows: Callable[[int], bytes]) -> None:
    content = rows(20)
    done = await async_client.uploads.upload_file_chunked(
        file=content, filename="big.jsonl", bytes=len(content), mime_type="application/jsonl", purpose="batch", part_size=500
    )
    assert done.file is not None
    assert done.file.expires_at is not None, "files of batch expire, however they came"


def test_a_cancelled_upload_is_over(served: Any, client: openai.OpenAI) -> None:
    upload = begin(client, 8)
    part = client.uploads.parts.create(upload.id, data=b"01234567")
    assert len(stored(served, upload.id)) == 1
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert stored(served, upload.id) == []
    assert client.uploads.cancel(upload.id).status == "cancelled"
    for call in (
        lambda: client.uploads.parts.create(upload.id, data=b"1"),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError, match=f"Upload {upload.id} is cancelled.*Create another upload"):
            call()


def test_what_does_not_fit_is_refused_and_the_upload_stays(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    content = rows(12)
    upload = begin(client, len(content))
    first, second = (client.uploads.parts.create(upload.id, data=piece).id for piece in pieces(content, 2))
    other = client.uploads.parts.create(begin(client, 3).id, data=b"abc").id
    right = hashlib.md5(content, usedforsecurity=False).hexdigest()
    for part_ids, md5, param, told in (
        ([first], None, "part_ids", f"The 1 parts have .* announced with {len(content)}"),
        ([first, first], None, "part_ids", "is there twice"),
        ([first, other], None, "part_ids", "is no part of this upload"),
        ([second, first], None, "file", "JSONL format"),
        ([second, first], right, None, "JSONL format|have the md5 sum"),
        ([first, second], "0" * 32, "md5", f"have the md5 sum {right}"),
        ([first, second], "xyz", "md5", r"must match pattern"),
    ):
        with pytest.raises(openai.BadRequestError, match=told) as caught:
            client.uploads.complete(upload.id, part_ids=part_ids, **({} if md5 is None else {"md5": md5}))
        assert param is None or caught.value.param == param
    done = client.uploads.complete(upload.id, part_ids=[first, second], md5=right.upper())
    assert done.status == "completed"


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"bytes": 0}, "bytes", "bytes"),
        ({"bytes": "9"}, "bytes", "bytes"),
        ({"bytes": 9 * 1024**3}, "bytes", "larger than the limit of 8589934592 bytes"),
        ({"purpose": "user_data"}, "purpose", "'user_data' is not one of"),
        ({"mime_type": "jsonl"}, "mime_type", "mime_type"),
        ({"filename": ""}, "filename", "filename"),
        ({"colour": "red"}, "colour", "colour"),
        ({"expires_after": {"anchor": "created_at", "seconds": 5}}, "expires_after.seconds", "seconds"),
    ],
)
def test_a_wrong_beginning_names_its_field(http: httpx2.Client, body: dict[str, Any], param: str, told: str) -> None:
    right = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 5, "mime_type": "text/plain"}
    answer = http.post("/v1/uploads", json={**right, **body})
    assert answer.status_code == (413 if "larger" in told else 400)
    error = answer.json()["error"]
    assert error["param"] == param
    assert told in error["message"]


def test_a_wrong_part_names_what_is_wrong(client: openai.OpenAI, http: httpx2.Client) -> None:
    upload = begin(client, 4).id
    for files, data, told in (
        ({"file": ("x", b"1")}, {}, "Missing required parameter: 'data'"),
        ({"data": ("x", b"")}, {}, "The part is empty"),
        ({"data": ("x", b"1")}, {"colour": "red"}, "Unknown parameter: 'colour'"),
    ):
        answer = http.post(f"/v1/uploads/{upload}/parts", files=files, data=data)
        assert answer.status_code == 400
        assert told in answer.json()["error"]["message"]
    # curl's -F data=... sends no filename
    plain = {
        "content": b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\nabcd\r\n--b--\r\n',
        "headers": {"content-type": "multipart/form-data; boundary=b"},
    }
    assert http.post(f"/v1/uploads/{upload}/parts", **plain).status_code == 200


def test_an_upload_takes_no_end_of_bytes(served: Any, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.services.uploads.PART_BYTES", 10)
    upload = begin(client, 10)
    for _ in range(3):  # each part twice, and one part more
        client.uploads.parts.create(upload.id, data=b"0123456789")
    with pytest.raises(openai.APIStatusError, match="has received 30 already: it takes no more") as caught:
        client.uploads.parts.create(upload.id, data=b"0123456789")
    assert caught.value.status_code == 413
    assert len(stored(served, upload.id)) == 3


def test_a_part_over_the_limit_is_a_413(client: openai.OpenAI) -> None:
    upload = begin(client, 100_000_000)
    with pytest.raises(openai.APIStatusError, match="over the limit of 67108864 bytes") as caught:
        client.uploads.parts.create(upload.id, data=io.BytesIO(b"0" * (64 * 1024**2 + 2 * 1024**2)))
    assert caught.value.status_code == 413


@pytest.mark.parametrize("call", ["parts", "complete", "cancel"])
def test_an_unknown_upload_is_a_404(client: openai.OpenAI, call: str) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "parts": lambda: client.uploads.parts.create("upload_x", data=b"1"),
        "complete": lambda: client.uploads.complete("upload_x", part_ids=["part_x"]),
        "cancel": lambda: client.uploads.cancel("upload_x"),
    }
    with pytest.raises(openai.NotFoundError, match="No such Upload object: upload_x"):
        calls[call]()


def test_an_hour_later_it_is_expired(served: Any, client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = begin(client, 4)
    part = client.uploads.parts.create(upload.id, data=b"abcd")
    real = SystemClock().now
    monkeypatch.setattr(type(served.composed.services.clock), "now", lambda _: real() + LIFE_S + 1)
    for call in (
        lambda: client.uploads.parts.create(upload.id, data=b"1"),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
        lambda: client.uploads.cancel(upload.id),
    ):
        with pytest.raises(openai.BadRequestError, match="is expired"):
            call()
    assert served.composed.services.uploads.sweep() >= 1
    assert stored(served, upload.id) == []
    with served.composed.db.read() as tx:
        kept = uploads.get(tx, Project("proj_default"), upload.id)
    assert kept is not None
    assert kept.status == "expired"
    assert not kept.has_parts
    log = client.get(f"{served.root}/tunesmith/v1/audit?limit=100", cast_to=dict[str, Any])["data"]
    assert [(each["actor"], each["action"]) for each in log if each["objects"] == [upload.id]] == [
        ("system", "upload.expired"), ("admin", "POST /v1/uploads"),
    ]  # fmt: skip


def test_a_part_with_a_key_is_stored_once(served: Any, client: openai.OpenAI) -> None:
    upload = begin(client, 4)
    key = {"Idempotency-Key": "part-1"}
    first = client.uploads.parts.create(upload.id, data=b"abcd", extra_headers=key)
    assert client.uploads.parts.create(upload.id, data=b"abcd", extra_headers=key) == first
    assert len(stored(served, upload.id)) == 1
    with pytest.raises(openai.BadRequestError, match="Idempotency-Key"):
        client.uploads.parts.create(upload.id, data=b"other", extra_headers=key)


def test_a_server_that_is_started_again_goes_on_with_it(
    open_house: Callable[..., Any], tmp_path: Any, rows: Callable[[int], bytes]
) -> None:
    content = rows(15)
    first, second = pieces(content, 2)
    with open_house(tmp_path / "data") as house, openai.OpenAI(base_url=house.base_url, api_key="any") as client:
        upload = begin(client, len(content)).id
        part_ids = [client.uploads.parts.create(upload, data=first).id]
    with open_house(tmp_path / "data") as house, openai.OpenAI(base_url=house.base_url, api_key="any") as client:
        part_ids.append(client.uploads.parts.create(upload, data=second).id)
        done = client.uploads.complete(upload, part_ids=part_ids)
        assert done.file is not None
        assert client.files.content(done.file.id).read() == content


def test_of_two_that_complete_at_once_one_makes_the_file(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    content = rows(15)
    upload = begin(client, len(content)).id
    part = client.uploads.parts.create(upload, data=content).id
    before = len(list(client.files.list()))

    def complete(_: int) -> str:
        done = client.uploads.complete(upload, part_ids=[part])
        assert done.file is not None
        return done.file.id

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(complete, range(4)))) == 1
    assert len(list(client.files.list())) == before + 1

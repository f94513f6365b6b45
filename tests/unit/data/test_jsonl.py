"""Lines from chunks of any size, and what is refused as JSONL."""

import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.jsonl import JsonlCheck, Line, Lines, NotJson, NotJsonl, parse_object, read_lines

LIMIT = 1000


def cut(content: bytes, sizes: list[int]) -> list[bytes]:
    """Cut content into chunks of the sizes, over and over."""
    chunks: list[bytes] = []
    start, turn = 0, 0
    while start < len(content):
        size = sizes[turn % len(sizes)]
        chunks.append(content[start : start + size])
        start, turn = start + size, turn + 1
    return chunks


def lines_of(chunks: list[bytes], limit: int = LIMIT) -> list[tuple[int, bytes | None]]:
    lines = Lines(max_line_bytes=limit)
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    found += lines.finish()
    return [(line.number, None if line.content is None else bytes(line.content)) for line in found]


def check(chunks: list[bytes], limit: int = LIMIT) -> JsonlCheck:
    checked = JsonlCheck(max_line_bytes=limit)
    for chunk in chunks:
        checked.feed(chunk)
    checked.finish()
    return checked


@given(
    pieces=st.lists(
        st.sampled_from([b"{}", b'{"a": 1}', b"\n", b"\r\n", b"\r", b"\xef\xbb\xbf", b"\xff", b"  ", b"[1]", b"long" * 9])
    ),
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
)
def test_any_chunking_gives_the_same_lines_and_errors(pieces: list[bytes], sizes: list[int]) -> None:
    content, limit = b"".join(pieces), 30
    chunks = cut(content, sizes)
    assert lines_of(chunks, limit) == lines_of([content] if content else [], limit)

    def outcome(chunks: list[bytes]) -> object:
        try:
            return check(chunks, limit).n_rows
        except NotJsonl as error:
            return error.line, str(error)

    assert outcome(chunks) == outcome([content])


@given(content=st.binary(max_size=200), sizes=st.lists(st.integers(1, 50), min_size=1, max_size=3))
def test_bytes_of_any_kind_are_accepted_or_refused_as_declared(content: bytes, sizes: list[int]) -> None:
    try:
        outcome: object = check(cut(content, sizes)).n_rows
    except NotJsonl as error:
        outcome = error
    if isinstance(outcome, NotJsonl):
        assert str(outcome).startswith("Expected file to have JSONL format, where every line is a valid JSON dictionary. ")
        assert outcome.line <= content.count(b"\n") + 1
    else:
        assert outcome == sum(isinstance(json.loads(line), dict) for line in content.split(b"\n") if line.strip())


@given(
    objects=st.lists(st.dictionaries(st.text(), st.text() | st.integers(-(2**70), 2**70) | st.none()), min_size=1),
    ends=st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\r\n \t\n"]),
    bom=st.booleans(),
    sizes=st.lists(st.integers(1, 99), min_size=1, max_size=3),
)
def test_what_was_written_is_what_is_read(
    objects: list[dict[str, object]], ends: bytes, bom: bool, sizes: list[int]
) -> None:
    content = (b"\xef\xbb\xbf" if bom else b"") + ends.join(json.dumps(item).encode() for item in objects)
    assert check(cut(content, sizes), 10**6).n_rows == len(objects)
    lines = read_lines(io.BytesIO(content), max_line_bytes=10**6)
    assert [parse_object(line, max_line_bytes=10**6) for line in lines] == objects


def test_lines_count_as_in_an_editor() -> None:
    content = b'\xef\xbb\xbf{"a": 1}\r\n\r\n \t\n{"b": 2}\n{"c": 3}'
    assert lines_of([content]) == [(1, b'{"a": 1}'), (2, b""), (3, b" \t"), (4, b'{"b": 2}'), (5, b'{"c": 3}')]
    assert [line.number for line in read_lines(io.BytesIO(content), max_line_bytes=99)] == [1, 4, 5]
    assert check([content]).n_rows == 3


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"", 0, "The file holds no line that is not blank."),
        (b"\n \n\r\n", 0, "The file holds no line that is not blank."),
        (b"\xef\xbb\xbf", 0, "The file holds no line that is not blank."),
        (b"hello", 1, "Line 1 is not valid JSON: expected value at column 1; it begins with 'hello'."),
        (b'[\n  {"messages": []}\n]\n', 1, "it begins with '['; an object stands on one line."),
        (b"{}\n\n[1]\n", 3, "Line 3 is JSON but not a dictionary: it begins with '[1]'."),
        (b'{}\n"\xc3\xa9"', 2, "Line 2 is JSON but not a dictionary"),
        (b'{"a": NaN}', 1, "not valid JSON"),
        (b"{}{}", 1, "trailing characters"),
        (b'{"a": "\\ud800"}', 1, "not valid JSON"),
        (b"[" * 100_000, 1, "longer than 1,000 bytes"),
        (b"[" * 900, 1, "recursion limit"),
        (b'{}\n{"a": "\xff"}', 2, "Line 2 is not valid UTF-8: byte 0xff at position 8."),
        ('{"a": 1}\n'.encode("utf-16"), 1, "byte 0xff at position 1; the file looks like UTF-16, save it as UTF-8."),
        (b"id,text\n1,hello\n", 1, "Line 1 is not valid JSON"),
    ],
)
def test_what_is_not_jsonl(content: bytes, line: int, words: str) -> None:
    with pytest.raises(NotJsonl) as caught:
        check([content])
    assert caught.value.line == line
    assert words in str(caught.value)
    assert str(caught.value).startswith("Expected file to have JSONL format, where every line is a valid JSON dictionary. ")


def test_the_limit_is_the_length_of_a_line_without_its_end() -> None:
    exact = b'{"a": "' + b"x" * (LIMIT - 9) + b'"}'
    assert len(exact) == LIMIT
    for content in (exact, exact + b"\n", exact + b"\r\n", b"\xef\xbb\xbf" + exact + b"\r\n{}"):
        assert check([content]).n_rows == content.count(b"{")
        assert check(cut(content, [7])).n_rows == content.count(b"{")
    for content in (b" " + exact, b" " + exact + b"\r\n"):
        for chunks in ([content], cut(content, [7])):
            with pytest.raises(NotJsonl, match="longer than 1,000 bytes"):
                check(chunks)


def test_an_endless_line_is_refused_without_being_held() -> None:
    chunk = b"x" * 65_536
    lines = Lines(max_line_bytes=100_000)
    tracemalloc.start()
    for _ in range(6_104):  # 400 MB of one line
        assert list(lines.feed(chunk)) == []
    assert list(lines.feed(b"\n{}\n")) == [Line(1, None), Line(2, b"{}")]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_line_over_the_limit_is_no_object() -> None:
    with pytest.raises(NotJson, match="longer than 5 bytes"):
        parse_object(Line(1, None), max_line_bytes=5)

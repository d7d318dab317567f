"""A file of records is read line by line: invalid lines are reported, and the others continue."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Entity
from pipeline.errors import Rejected
from pipeline.transform.exports import MAX_LINE_BYTES, message_of, read_records, split_lines


def read(text: bytes, form: str = "json", *, size: int = 7) -> list[Any]:
    """Return the records and the errors of a file that arrives in small pieces."""
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return [item.detail if isinstance(item, Rejected) else item for item in read_records(pieces, form)]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_record_to_a_line_wherever_the_pieces_end(size: int) -> None:
    text = '{"id":"1","name":"Zoë"}\r\n\n{"id":"2"}\n   \n{"id":"3"}'.encode()

    assert read(text, size=size) == [{"id": "1", "name": "Zoë"}, {"id": "2"}, {"id": "3"}]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json", "it is not JSON"),
        (b'{"id":', "it is not JSON"),
        (b"[1]", "it is not an object"),
        (b'"text"', "it is not an object"),
        (b"\xff\xfe", "it is not JSON"),
        (b'{"a":' * 60 + b"1" + b"}" * 60, "it is nested too deeply"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"id":"' + b"x" * MAX_LINE_BYTES + b'"}', "it is too long"),
    ],
)
def test_a_broken_line_is_named_by_its_number_and_the_others_go_on(line: bytes, words: str) -> None:
    text = b'{"id":"1"}\n' + line + b'\n{"id":"3"}\n'

    assert read(text, size=50_000) == [{"id": "1"}, f"line 2: {words}", {"id": "3"}]


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (b'{"id": 1}\n\nno json\n{"id": 2}\n[]\n  \n{"id": 3}\n', "json"),
        (b'\nid,name\n1,"a\nb"\n\n2\n,\n3,c\n4,d\n', "csv"),
    ],
)
def test_reading_continues_after_the_earlier_lines(text: bytes, form: str) -> None:
    whole = [str(item) for item in read_records([text], form)]

    assert len(whole) > 3
    for skip in range(len(whole) + 2):
        assert [str(item) for item in read_records([text], form, skip=skip)] == whole[skip:]


def test_of_a_line_without_end_only_the_beginning_is_held() -> None:
    lines = list(split_lines(b"x" * 100_000 for _ in range(100)))

    assert [len(line) for line in lines] == [MAX_LINE_BYTES + 1]


def test_rows_go_by_the_names_of_the_first_one() -> None:
    text = (
        "\ufeffid,email,traits_note,segment_ids,anonymous_ids,account.id,account.domain\r\n"
        '1,a@x.test,"two\nlines, ""quoted""","[""s1"",""s2""]","a:1, b:2",9,x.test\r\n'
        "2,,,,,,\r\n"
    ).encode()

    assert read(text, "csv") == [
        {
            "id": "1",
            "email": "a@x.test",
            "traits_note": 'two\nlines, "quoted"',
            "segment_ids": ["s1", "s2"],
            "anonymous_ids": ["a:1", "b:2"],
            "account": {"id": "9", "domain": "x.test"},
        },
        {"id": "2"},
    ]


def test_a_row_of_another_length_is_named() -> None:
    assert read(b"id,name\n1\n2,Ada\n3,b,c\n", "csv") == [
        "line 2: 1 cells under 2 names",
        {"id": "2", "name": "Ada"},
        "line 4: 3 cells under 2 names",
    ]


def test_a_user_is_sent_by_hand_with_its_account_and_segments() -> None:
    record = {"id": "1", "traits_a": 1, "segment_ids": ["s1", "s9", 7], "account": {"id": "9"}}

    assert message_of(record, Entity.PERSON, {"s1": {"id": "s1", "name": "VIP"}}, "s2") == {
        "user": {"id": "1", "traits_a": 1, "segment_ids": ["s1", "s9", 7]},
        "account": {"id": "9"},
        "segments": [{"id": "s1", "name": "VIP"}, {"id": "s9"}, {"id": "s2"}],
        "is_export": True,
    }


@pytest.mark.parametrize(
    ("cell", "ids"),
    [
        ("s1", ["s1"]),
        ("s1, s2", ["s1", "s2"]),
        ("Leads, Europe", ["s2"]),
        ("VIP,Leads, Europe", ["s1", "s2"]),
        ("Leads, Asia", ["Leads, Asia"]),
        ("s8,s9", ["s8", "s9"]),
    ],
)
def test_a_segment_name_with_a_comma_is_one_segment(cell: str, ids: list[str]) -> None:
    known = {"s1": {"id": "s1", "name": "VIP"}, "s2": {"id": "s2", "name": "Leads, Europe"}}
    (record,) = read(f'id,segment_ids\n1,"{cell}"\n'.encode(), "csv")

    message = message_of(record, Entity.PERSON, known, None)

    assert [segment["id"] for segment in message["segments"]] == ids
    assert message["user"]["segment_ids"] == ids


def test_an_account_is_sent_by_hand_with_its_segments() -> None:
    assert message_of({"id": "9", "segment_ids": ["s1"]}, Entity.ORGANIZATION, {}, "s1") == {
        "account": {"id": "9", "segment_ids": ["s1"]},
        "account_segments": [{"id": "s1"}],
        "is_export": True,
    }


@pytest.mark.parametrize("account", [None, "x", []])
def test_a_user_without_an_account_has_an_empty_one(account: Any) -> None:
    assert message_of({"id": "1", "account": account}, Entity.PERSON, {}, None)["account"] == {}

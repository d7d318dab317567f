"""PostgreSQL reads array literals with any content as they were written."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db.session import transaction
from db.statement import bigints, byteas, texts

WORDS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.lists(WORDS | st.sampled_from(["NULL", "{", '"', "\\", '\\"', ",", " a ", "", "a\nb"])))
def test_texts_are_read_as_they_were_written(database: str, values: list[str]) -> None:
    with transaction() as session:
        back = session.execute(text("SELECT CAST(:values AS text[])"), {"values": texts(values)}).scalar_one()

    assert back == values


@QUICK
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_numbers_are_read_as_they_were_written(database: str, values: list[int]) -> None:
    with transaction() as session:
        back = session.execute(text("SELECT CAST(:values AS bigint[])"), {"values": bigints(values)}).scalar_one()

    assert back == values


@QUICK
@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"", b"\x00", b'"', b"\\", b"NULL", b"{}"])))
def test_bytes_are_read_as_they_were_written(database: str, values: list[bytes]) -> None:
    with transaction() as session:
        back = session.execute(text("SELECT CAST(:values AS bytea[])"), {"values": byteas(values)}).scalar_one()

    assert [bytes(value) for value in back] == values

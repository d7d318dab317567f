"""Answers as text: tables, ids, times and square brackets."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.cli.presentation import lines, print_rows, show_plainly
from pipeline.operations.models import PageOnly


class Row(BaseModel):
    id: int
    count: int
    started_at: datetime
    name: str | None
    hidden: PageOnly[str] = ""


class Answer(BaseModel):
    total: int
    states: dict[str, int]
    rows: list[Row]


ROW = Row(id=12345, count=12345, started_at=datetime(2026, 9, 1, 12, tzinfo=UTC), name="[bold]")


def test_an_id_can_be_copied_from_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([ROW], "id count started_at name twice", twice=lambda row: row.count * 2)
    heading, line = capsys.readouterr().out.splitlines()

    assert heading.split() == ["id", "count", "started", "(UTC)", "name", "twice"]
    assert line.split() == ["12345", "12,345", "2026-09-01", "12:00:00", "[bold]", "24,690"]


def test_an_empty_table_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], "id", empty="No rows.")

    assert capsys.readouterr().out == "No rows.\n"


def test_any_answer_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    show_plainly(None, Answer(total=1, states={"done": 2}, rows=[ROW]))
    printed = capsys.readouterr().out

    assert "done: 2" in printed
    assert "[bold]" in printed
    assert "hidden" not in printed


def test_lines_have_fields_of_the_request_and_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    request: Any = Row.model_construct(name="acme")
    lines("{request.name}: {answer.id}")(request, ROW)

    assert capsys.readouterr().out == "acme: 12345\n"

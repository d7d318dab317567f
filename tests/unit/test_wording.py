"""Everything that people read is plain English; `python -m tests.wording --list` shows what is not."""

from __future__ import annotations

from functools import cache

import pytest

from tests.wording import Finding, Text, duplicate_names, findings, texts


@cache
def all_findings() -> list[Finding]:
    return [finding for text in texts() for finding in findings(text)]


@pytest.mark.parametrize("kind", ["docstring", "interface", "document", "name"])
@pytest.mark.parametrize("check", ["avoided", "long", "verbless"])
def test_texts_are_plain_english(kind: str, check: str) -> None:
    found = [each for each in all_findings() if each.text.kind == kind and each.check == check]

    assert [f"{each.text.place}: {each.detail}" for each in found] == []


def test_all_kinds_of_texts_are_read() -> None:
    assert {text.kind for text in texts()} == {"docstring", "interface", "document", "name"}


def test_no_two_public_classes_share_a_name() -> None:
    assert duplicate_names() == {}


@pytest.mark.parametrize(
    ("planted", "check"),
    [
        ("Whoever has the key is let in.", "avoided"),
        ("All Persons of the company, in the sequence of their ids, without gaps.", "verbless"),
        (f"The fetch reads {'a page and ' * 15}the next one.", "long"),
    ],
)
def test_a_planted_sentence_is_found(planted: str, check: str) -> None:
    assert check in {each.check for each in findings(Text("interface", "planted.html:1", planted))}


def test_a_planted_name_is_found() -> None:
    assert list(findings(Text("name", "planted.py:1", "is_told"))) != []


def test_a_plain_sentence_passes() -> None:
    assert list(findings(Text("interface", "planted.html:1", "Save the mappings, then fetch all Persons."))) == []

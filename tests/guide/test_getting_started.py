"""Getting Started: the guide itself."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient

from tests.guide.not_yet import NOT_YET
from tests.guide.page import ADVICE, GUIDE, promises, sections


@pytest.mark.guide("Getting Started", 'Where something is planned and not built, it says "Not yet".')
def test_says_what_is_not_built(door: FlaskClient) -> None:
    served = door.get("/readme.md")
    said = {(heading, f"Not yet: {sentence}") for heading, sentence, _ in NOT_YET}

    assert served.text == GUIDE.read_text()
    assert all(sentence in sections()[heading] for heading, sentence in said)
    assert sum(text.count("Not yet:") for text in sections().values()) == len(said)


def test_every_promise_stands_in_the_guide_below_its_heading() -> None:
    astray = [promise for promise in promises() if promise.sentence not in sections().get(promise.heading, "")]

    assert astray == []


def test_every_sentence_of_the_guide_is_held_or_admitted() -> None:
    """What remains when promises, admissions and advice are taken away must be nothing but punctuation."""
    left = {heading: rest for heading in sections() if re.search(r"\w", rest := _unheld(heading))}

    assert left == {}


def _unheld(heading: str) -> str:
    kept = [promise.sentence for promise in promises() if promise.heading == heading]
    admitted = [f"Not yet: {sentence}" for where, sentence, _ in NOT_YET if where == heading]
    rest = sections()[heading]
    for known in sorted([*kept, *admitted, *ADVICE], key=len, reverse=True):
        rest = rest.replace(known, " ")
    return rest


def test_the_doctor_answers_headings_of_the_guide() -> None:
    from pipeline.cli.troubleshooting import HEADINGS  # noqa: PLC0415 - Celery reads its settings when it is imported

    assert set(HEADINGS) <= set(sections())
    assert len(HEADINGS) == 4


def test_no_two_tests_hold_the_same_sentence() -> None:
    sentences = [(promise.heading, promise.sentence) for promise in promises()]

    assert len(sentences) == len(set(sentences))
    assert len(sentences) > 50

"""Getting Started: the guide itself."""

from __future__ import annotations

import re

from flask.testing import FlaskClient

from tests.guide.page import ADVICE, GUIDE, promises, sections


def test_the_guide_is_what_hull_shows(client: FlaskClient) -> None:
    assert client.get("/readme.md").text == GUIDE.read_text()


def test_every_promise_stands_in_the_guide_below_its_heading() -> None:
    astray = [promise for promise in promises() if promise.sentence not in sections().get(promise.heading, "")]

    assert astray == []


def test_every_sentence_of_the_guide_is_held() -> None:
    """What remains when promises and advice are taken away must be nothing but punctuation."""
    left = {heading: rest for heading in sections() if re.search(r"\w", rest := _unheld(heading))}

    assert left == {}


def _unheld(heading: str) -> str:
    kept = [promise.sentence for promise in promises() if promise.heading == heading]
    rest = sections()[heading]
    for known in sorted([*kept, *ADVICE], key=len, reverse=True):
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

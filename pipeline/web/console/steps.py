"""The next step of what is not as it should be: words and an address for each topic of a status."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from pipeline.domain.kinds import Entity
from pipeline.insight.condition import NoteShape

BY_HAND = ("", "connector_paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """`posts` where it is done by a button; its role is an operator's then."""

    words: str
    address: str
    posts: bool = False


def step_of(note: NoteShape, connector: str) -> NextStep:
    """What to press beside the note."""
    words, page, *posts = _step(note.topic, note.subject or "")
    return NextStep(words=words, address=f"/c/{quote(connector, safe='')}/{page}", posts=bool(posts))


def _step(topic: str, subject: str) -> tuple[str, ...]:
    """(words, page), and a third where it is a button."""
    if topic == "pause" and subject in BY_HAND:
        return "Resume", "actions/resume", "posts"
    if topic == "first_fetch":
        return f"Fetch All {Entity(subject).plural.capitalize()}…", f"actions/fetch/{subject}"
    if topic == "waits":
        return (f"Open run {subject}", f"runs/{subject}") if subject else ("Open Runs", "runs")
    steps: dict[str, tuple[str, ...]] = {
        "pause": ("Open Credentials", "credentials"),
        "credentials": ("Open Credentials", "credentials"),
        "webhooks": ("Open Webhooks", "webhooks"),
        "watermark": ("Fetch what changed", "actions/changes", "posts"),
        "outage": ("See the fetches", "runs"),
        "budget": ("See the budget", "#budget"),
        "run": (f"Open run {subject}", f"runs/{subject}"),
        "failures": ("Open these failures", f"failures?{urlencode({'reason': subject})}"),
    }
    return steps.get(topic, ("Open Settings", "settings"))

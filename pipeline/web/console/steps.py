"""The next step of what is not as it should be: words and an address for each topic of a status."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, urlencode

from pipeline.insight.overview import Note

BY_HAND = (None, "connector_paused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`posts` where it is done by a button; its role is an operator's then."""

    words: str
    address: str
    posts: bool = False


def step_of(note: Note, connector: str) -> Step:
    """What to press beside the note."""
    home = f"/c/{quote(connector, safe='')}"
    if note.topic == "pause":
        if note.subject in BY_HAND:
            return Step(words="Resume", address=f"{home}/actions/resume", posts=True)
        return Step(words="Open Credentials", address=f"{home}/credentials")
    if note.topic == "watermark":
        return Step(words="Fetch what changed", address=f"{home}/actions/changes", posts=True)
    if note.topic == "run":
        return Step(words=f"Open run {note.subject}", address=f"{home}/runs/{note.subject}")
    if note.topic == "failures":
        return Step(words="Open these failures", address=f"{home}/failures?{urlencode({'reason': note.subject or ''})}")
    words, page = {
        "credentials": ("Open Credentials", "credentials"),
        "webhooks": ("Open Webhooks", "webhooks"),
        "budget": ("See the budget", "#budget"),
    }.get(note.topic, ("Open Settings", "settings"))
    return Step(words=words, address=f"{home}/{page}")

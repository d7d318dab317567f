"""Outages in sentences for people: which remote system does not answer, since when, and what waits for it."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db import outage as outages
from db.outage import REMOTES, Outage, Waiting
from pipeline.domain.reasons import describe
from pipeline.sync.retries import INSTALLATION

NOTHING = "Nothing waits for it now."
KINDS = {"batches": ("batch", "batches"), "changes": ("change", "changes"), "jobs": ("job", "jobs")}


def sentences(session: Session, connector_key: int) -> list[str]:
    """One sentence for each remote system that does not answer, the longest outage first."""
    found = outages.outages_of(session, connector_key)
    waiting = outages.waiting_of(session, connector_key) if found else {}
    return [_sentence(each, waiting) for each in found]


def _sentence(outage: Outage, waiting: dict[str, Waiting]) -> str:
    since = f"{outage.since:%Y-%m-%d %H:%M:%S} UTC"
    base = outage.remote.removesuffix(" limit")
    name = REMOTES.get(base, base)
    calls = f"{outage.failures} call{'s' if outage.failures > 1 else ''}"
    if base != outage.remote:
        waits = _waits(waiting.get("rate limit", Waiting()))
        return f"{name} has answered only HTTP 429 since {since} ({calls}). {waits} {describe('rate_limited')}"
    if outage.reason in INSTALLATION:
        waits = _waits(waiting.get(outage.remote, Waiting()))
        return f"{name} refuses this installation's app since {since} ({calls}). {waits} {describe(outage.reason)}"
    words = f"{outage.reason}: {outage.detail}" if outage.detail else outage.reason
    waits = _waits(waiting.get(outage.remote, Waiting()))
    if waits == NOTHING:
        return f"{name} has not answered since {since} ({calls}, last {words}). {waits} The next call asks it again."
    asked = f"It is asked again at {outage.probe_at:%H:%M:%S} UTC; everything goes on by itself as soon as it answers."
    return f"{name} has not answered since {since} ({calls}, last {words}). {waits} {asked}"


def _waits(waiting: Waiting) -> str:
    parts = [f"{count} {KINDS[kind][0 if count == 1 else 1]}" for kind in KINDS if (count := getattr(waiting, kind))]
    if not parts:
        return NOTHING
    verb = "waits" if parts == [f"1 {parts[0].split()[1]}"] else "wait"
    return f"{', '.join(parts)} {verb} for it."

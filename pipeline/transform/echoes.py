"""Detect reports that are older than what we know: those before a newer report, and those that repeat our own delivery.

Hull reports every delivered shared attribute some time later. By then Pipedrive may have another value, and the report
looks like an edit. So a delivered value is an echo until Hull has reported another one: a later delivery, or one of its
own. Clocks count only if they are a minute apart.

Hull already has the values of its own report, or a newer edit: Pipedrive's answer to a write contains nothing new for
it, and might undo that edit. Hull needs it only if Hull received another value in between.

We may have sent Hull another value over an edit while its report was in flight. The coalesced messages contain both,
and the edit counts as if it had arrived alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.domain.outgoing import Delivered, Heard, Memory
from pipeline.transform.hull_reports import ABSENT, attribute_name, find_attribute, reported_at
from pipeline.transform.message_folding import values_said
from pipeline.transform.writing.targets import Target, digest_said, digest_value

LATE_S: Final = 60
"""Maximum difference between our clock and Hull's, and between our delivery and Hull's processing."""


def hear(
    targets: Iterable[Target],
    message: Mapping[str, Any],
    report: Mapping[str, Any],
    memory: Memory,
    told: Sequence[Delivered],
) -> dict[str, Heard]:
    """Return field key → the delivered value that the message repeats; the field is an echo if that is its last value there."""
    said = {attribute_name(name): values for name, values in values_said(message).items()}
    found: dict[str, Heard] = {}
    for target in targets:
        if target.attribute is None or target.parts:
            continue
        key, name = target.source.key, attribute_name(target.attribute)
        words = [(each.at, digest_value(each.values[name])) for each in told if name in each.values]
        since = memory.reported_at or 0
        heard = memory.heard.get(key, (0.0, False))
        values = [(digest_value(value), at) for value, at in said.get(name, ()) if at >= since]
        for digest, at in [*values, (digest_said(target, report), reported_at(report))]:
            heard = _hear_one(heard, digest, _not_over(words, at))
        if heard != (0.0, False):
            found[key] = heard
    return found


def _not_over(words: Sequence[tuple[float, str]], reported_ms: int | None) -> Sequence[tuple[float, str]]:
    """Leave out deliveries after which Hull received another one so long before this report that they cannot be in it."""
    if reported_ms is None:
        return words
    done = sum(at <= reported_ms / 1000 - LATE_S for at, _ in words)
    return words[max(0, done - 1) :]


def _hear_one(heard: Heard, digest: str, words: Sequence[tuple[float, str]]) -> Heard:
    """Hull has reported one more value: the last of our words that it may be, or none of them."""
    since, is_last = heard
    awaited = [at for at, word in words if word == digest and (at > since or (at == since and is_last))]
    return (awaited[-1], True) if awaited else (since, False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A value that an attribute had before we delivered another one, and when Hull reported it, in milliseconds."""

    attribute: str
    value: Any
    at: int


def edits_told_over(
    targets: Iterable[Target], message: Mapping[str, Any], told: Sequence[Delivered], memory: Memory
) -> dict[str, Edit]:
    """Return field key → the last value that Hull's users or other sources set before our delivery."""
    found: dict[str, Edit] = {}
    said = {attribute_name(name): values for name, values in values_said(message).items()}
    for target in targets:
        name = attribute_name(target.attribute or "")
        ours = {digest_value(each.values[name]) for each in told if name in each.values}
        agreed = memory.agreed.get(target.source.key, ("", ""))[0]
        for value, at in said.get(name, ()):
            if digest_value(value) not in {*ours, agreed} and at >= (memory.reported_at or 0):
                found[target.source.key] = Edit(attribute=name, value=value, at=at)
    return found


def held_by_hull(
    targets: Iterable[Target], report: Mapping[str, Any], told: Sequence[Delivered], memory: Memory
) -> dict[str, Any]:
    """Return attribute → Hull's value, for attributes without a delivery that Hull has not reported again."""
    held: dict[str, Any] = {}
    for target in targets:
        if target.attribute is not None and not target.parts:
            name, (since, _) = attribute_name(target.attribute), memory.heard.get(target.source.key, (0.0, False))
            if not any(name in each.values and each.at > since for each in told):
                value = find_attribute(report, name)
                held[name] = None if value is ABSENT else value
    return held


def is_overtaken(report: Mapping[str, Any], memory: Memory) -> bool:
    """Whether a newer report of the record has been considered already."""
    moment = reported_at(report)
    return moment is not None and memory.reported_at is not None and moment < memory.reported_at


def with_report(memory: Memory, report: Mapping[str, Any], heard: Mapping[str, Heard]) -> Memory:
    """Return the memory of a record after this report: which deliveries Hull has reported, and how new the report is."""
    newest = max((each for each in (reported_at(report), memory.reported_at) if each is not None), default=None)
    return replace(memory, heard={**memory.heard, **heard}, reported_at=newest)

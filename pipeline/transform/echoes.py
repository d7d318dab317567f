"""Which reports are older than what we know already: those that another one has overtaken, and those that repeat our own words.

Whatever Hull is told of a shared attribute it reports, some time later. By then Pipedrive may hold something else, and the report
looks like an edit. So a value that Hull was told is an echo until Hull has reported another one: a later one it was told, or one of
its own. Clocks count only where they are a minute apart.

What Hull says itself it holds, or an edit that is newer: Pipedrive's answer to a write is no news to it, and might undo that
edit. Only where Hull was told something else meanwhile, it has to be told.

We may have told Hull another value over an edit of which its report was still under way. The messages folded tell of both, and the
edit counts as if it had come alone.
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
"""By so much our clock may differ from Hull's, and its taking in of what it is told from our telling."""


def hear(
    targets: Iterable[Target],
    message: Mapping[str, Any],
    report: Mapping[str, Any],
    memory: Memory,
    told: Sequence[Delivered],
) -> dict[str, Heard]:
    """Key of a field → what the message repeats of what Hull was told; the field is an echo if that is the last it says of it."""
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
    """Leave out those after which Hull had been told another one so long before this report that they cannot be in it."""
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
    """A value that stood in an attribute before we told Hull another one, and when Hull reported it, in milliseconds."""

    attribute: str
    value: Any
    at: int


def edits_told_over(
    targets: Iterable[Target], message: Mapping[str, Any], told: Sequence[Delivered], memory: Memory
) -> dict[str, Edit]:
    """Key of a field → the last value that Hull's people or other sources gave it before it was told ours."""
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
    """Attribute → what Hull says of it, of those of which it was told nothing that it has not said again."""
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
    """The memory of a record, with what this report of it tells: that Hull has said again what it was told, and how new it is."""
    newest = max((each for each in (reported_at(report), memory.reported_at) if each is not None), default=None)
    return replace(memory, heard={**memory.heard, **heard}, reported_at=newest)

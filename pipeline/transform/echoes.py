"""Which reports are older than what we know already: those that another one has overtaken, and those that repeat our own words.

Whatever Hull is told of a shared attribute it reports, some time later. By then Pipedrive may hold something else, and the report
looks like an edit. So a value that Hull was told, and has not reported since, is an echo when it is reported. No clock of ours is
held against one of Hull's for that. What Hull has said itself and is told back changes nothing there, and is not waited for.

We may have told Hull another value over an edit of which its report was still under way. The messages folded tell of both, and the
edit counts as if it had come alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.domain.outgoing import Memory, Told
from pipeline.transform.hull_reports import attribute_name, reported_at
from pipeline.transform.message_folding import values_said
from pipeline.transform.writing.targets import Target, digest_said, digest_value


def echoes(
    targets: Iterable[Target], report: Mapping[str, Any], told: Sequence[Told], memory: Memory
) -> dict[str, float]:
    """Key of each field of which the report repeats what Hull was told → when it was told that."""
    found: dict[str, float] = {}
    answered = {(key, said) for key, said, _ in memory.recent}
    for target in targets:
        if target.attribute is None or target.parts:
            continue
        key, name, said = target.source.key, attribute_name(target.attribute), digest_said(target, report)
        for each in told:
            is_awaited = each.at > memory.heard.get(key, 0.0) and not (each.is_answer and (key, said) in answered)
            if name in each.values and is_awaited and digest_value(each.values[name]) == said:
                found[key] = each.at
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A value that stood in an attribute before we told Hull another one, and when Hull reported it, in milliseconds."""

    attribute: str
    value: Any
    at: int


def edits_told_over(
    targets: Iterable[Target], message: Mapping[str, Any], told: Sequence[Told], memory: Memory
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


def is_overtaken(report: Mapping[str, Any], memory: Memory) -> bool:
    """Whether a newer report of the record has been considered already."""
    moment = reported_at(report)
    return moment is not None and memory.reported_at is not None and moment < memory.reported_at


def with_report(memory: Memory, report: Mapping[str, Any], heard: Mapping[str, float]) -> Memory:
    """The memory of a record, with what this report of it tells: that Hull has said again what it was told, and how new it is."""
    newest = max((each for each in (reported_at(report), memory.reported_at) if each is not None), default=None)
    return replace(memory, heard={**memory.heard, **heard}, reported_at=newest)

"""The status text of a record: whether both sides agree, and if not, why not."""

from __future__ import annotations

from typing import Final

from pipeline.domain.departures import DEPARTED
from pipeline.domain.kinds import Entity
from pipeline.insight.record import Record

_STATES: Final = {
    "shell": "This Organization is only referenced yet: it is read within half a minute, or with the next fetch.",
    "conflict": "Hull holds several records of Pipedrive under this one, so nothing of it is sent.",
    "creating": "It is about to be made in Pipedrive.",
    "unknown": "Pipedrive was asked to make it and gave no answer: it is looked up before it is asked again.",
}
NAMED: Final = 4
"""Fields that are called by their names."""


def sentence_of(record: Record) -> str:
    """Whether both sides agree, and if not, why not."""
    whose, kind = record.whose, Entity(record.whose.entity)
    if record.state in DEPARTED:
        into = f" into {whose.entity} {record.merged_into}" if record.merged_into is not None else ""
        return f"This {kind.value.capitalize()} is {record.state}{into} in Pipedrive."
    if record.state in _STATES:
        return _STATES[record.state]
    if whose.pipedrive_id is None:
        return f"This {kind.hull.capitalize()} is joined to no {kind.value.capitalize()} of Pipedrive."
    return "Some values of this record were not synchronized." if record.failures else _agreement(record)


def _agreement(record: Record) -> str:
    if len(record.fields) <= 1:
        return "No field is mapped yet, so only the id is synchronized."
    differing = [row.field.attribute for row in record.fields if row.differs]
    unheard = sum(not row.is_heard for row in record.fields)
    if not differing and unheard:
        same = f"Both sides hold the same in {len(record.fields) - unheard} of {len(record.fields)} mapped fields"
        return f"{same}; of {'one' if unheard == 1 else unheard} Hull has told nothing yet."
    if not differing:
        return f"Both sides hold the same in all {len(record.fields)} mapped fields."
    more = f" and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    verb = "differs" if len(differing) == 1 else "differ"
    return f"{len(differing)} of {len(record.fields)} mapped fields {verb}: {', '.join(differing[:NAMED])}{more}."


def mood_of(record: Record) -> str:
    """The state of the sentence, as shapes and colours have it."""
    if record.failures or record.state == "conflict":
        return "error"
    if record.state in DEPARTED or record.whose.pipedrive_id is None:
        return "skip"
    return "ok" if record.state == "full" and not any(row.differs for row in record.fields) else "warning"

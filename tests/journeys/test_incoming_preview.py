"""The incoming preview of a record equals what the stages then do, for edits and for unexpected values."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from db import id_mapping
from db.session import transaction
from pipeline.domain.kinds import Entity
from pipeline.sync.compiled import compiled_for
from pipeline.sync.incoming.preview import IncomingEffect, IncomingPreview, incoming_preview
from tests.journeys.pipedrive_records import age_records, create_records
from tests.system import SyncSystem

Record = dict[str, Any]
UNSENT = (IncomingEffect.SAME, IncomingEffect.OLDER)
OF_CLAIMS = ("duplicate_claim", "shared_domain")
"""Another record holds the value: only load finds that."""
LATER = "2026-01-02T00:00:00Z"
EARLIER = "2025-12-31T00:00:00Z"
EDITS: list[Callable[[Record], Any]] = [
    lambda record: None,
    lambda record: record.update(name=f"{record['name']} the Second"),
    lambda record: record.update(name=None),
    lambda record: record.update(name=["a list"]),
    lambda record: record.update(name="Od\x00d"),
    lambda record: record.update(owner_id=None),
    lambda record: record.update(owner_id=[1]),
    lambda record: record.update(label_ids=[987_654]),
    lambda record: record.update(update_time=EARLIER, name="An older name"),
    lambda record: record.update(update_time="yesterday", add_time="never"),
]
OF_PERSONS: list[Callable[[Record], Any]] = [
    lambda record: record.update(emails=[]),
    lambda record: record.update(emails=[{"value": f"second{record['id']}@example.com", "primary": True}]),
    lambda record: record.update(emails=7),
    lambda record: record.update(phones=[{"value": "+49 30 1234", "primary": True}]),
    lambda record: record.update(org_id=None),
    lambda record: record.update(org_id=2),
]
OF_ORGANIZATIONS: list[Callable[[Record], Any]] = [
    lambda record: record.update(website=f"https://other{record['id']}.example.com"),
    lambda record: record.update(website=None),
    lambda record: record.update(address=None),
]


def edit(system: SyncSystem, entity: Entity, seed: int) -> dict[int, Record]:
    """Edit all records at random, and add one; return them as Pipedrive has them now."""
    chance = random.Random(seed)
    edits = EDITS + (OF_PERSONS if entity is Entity.PERSON else OF_ORGANIZATIONS)
    records = [json.loads(body) for body in system.company.export(entity.value)]
    new = {**records[0], "id": 900, "name": "Somebody new", "emails": [], "website": None, "update_time": LATER}
    system.company.load(entity.value, new)
    for record in records:
        record["update_time"] = LATER
        for change in chance.sample(edits, k=chance.randint(1, 2)):
            change(record)
        system.company.load(entity.value, record)
    return {record["id"]: record for record in [*records, new]}


def previews_of(system: SyncSystem, entity: Entity, records: dict[int, Record]) -> dict[int, IncomingPreview]:
    with transaction() as session:
        plan = compiled_for(session, system.connector_key, entity)
        known = id_mapping.known(session, system.connector_key, entity, list(records))
        return {each: incoming_preview(body, plan, entity, known.get(each)) for each, body in records.items()}


@pytest.mark.parametrize("entity", Entity)
@pytest.mark.parametrize("seed", range(4))
def test_a_preview_is_what_the_stages_do(system: SyncSystem, entity: Entity, seed: int) -> None:
    create_records(system, persons=25, organizations=25)
    age_records(system, entity)
    system.fetch(entity)
    records = edit(system, entity, seed)
    previews = previews_of(system, entity, records)

    run_id = system.start(entity)
    system.work()

    seen = {each: (None, frozenset[Any]()) for each in records} | what_was_done(system, run_id)
    assert seen == {each: (expected(preview), problems_of(preview)) for each, preview in previews.items()}
    assert {IncomingEffect.UPDATE, IncomingEffect.CREATE} <= {each.effect for each in previews.values()}
    assert any(problems for _, problems in seen.values())


def what_was_done(system: SyncSystem, run_id: int) -> dict[int, tuple[Any, frozenset[Any]]]:
    """Record → (outcome, reason, values before, values after) by its event, and the fields that were left out."""
    done: dict[int, Any] = {}
    left_out: dict[int, set[tuple[str, str]]] = {}
    for row in system.rows("SELECT * FROM sync_events WHERE run_id = :r ORDER BY id", r=run_id):
        if row.field is not None:
            left_out.setdefault(row.pipedrive_id, set()).update((row.reason, each) for each in row.field.split(", "))
        elif row.reason not in OF_CLAIMS:
            assert row.pipedrive_id not in done
            outcome = row.event.rpartition(".")[2]
            done[row.pipedrive_id] = outcome, row.reason, loaded(row.before), loaded(row.after)
    return {each: (done.get(each), frozenset(left_out.get(each, ()))) for each in done.keys() | left_out.keys()}


def expected(preview: IncomingPreview) -> tuple[Any, ...] | None:
    """Return what `what_was_done` returns if the stages do what the preview shows."""
    if preview.effect in UNSENT:
        return None
    if preview.reason is not None:
        return str(preview.effect), preview.reason, None, None
    after = {each.name: each.after for each in preview.changes}
    before = {each.name: each.before for each in preview.changes}
    return "success", None, None if preview.effect is IncomingEffect.CREATE else before, after


def problems_of(preview: IncomingPreview) -> frozenset[Any]:
    """The fields that are left out, each with its reason; of a record that is not sent nothing is logged."""
    if preview.effect in UNSENT:
        return frozenset()
    return frozenset((each.reason, each.field) for each in preview.problems)


def loaded(value: bytes | None) -> Any:
    return None if value is None else json.loads(bytes(value))

"""The transforms against the sandbox's company, which was written from Pipedrive's description without knowing them."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Literal

import pytest

from pipeline.domain.fields import FieldCatalog, read_field_definitions
from pipeline.domain.kinds import Entity
from pipeline.domain.settings import AttributeMapping
from pipeline.transform.incoming import IncomingTransform, compile_incoming
from pipeline.transform.outgoing import OutgoingTransform, compile_outgoing
from pipeline.transform.webhooks import complete_record, decode_webhook
from sandbox.company import Company, Event
from sandbox.company.fields import to_v1, to_v2
from sandbox.pipedrive.payload import payload
from tests.unit.transform.company import settings

RECORDS = 60
SUBSCRIPTION = {"id": 7, "type": "general", "version": "2.0", "owner_id": 1}

Kind = Literal["person", "organization"]
kinds = pytest.mark.parametrize("kind", ["person", "organization"])


@cache
def company() -> Company:
    return Company(persons=RECORDS, organizations=RECORDS)


@cache
def catalog(kind: Kind) -> FieldCatalog:
    fields = company().fields[kind]
    return FieldCatalog.of(Entity(kind), read_field_definitions([to_v2(field) for field in fields]))


def everything(kind: Kind, *, writable: bool) -> tuple[AttributeMapping, ...]:
    """Map every field of the company, or every one that takes a value."""
    rows = tuple(AttributeMapping(hull=f"x/{code}", service=code) for code in catalog(kind).by_code)
    if not writable:
        return rows
    transform = compile_outgoing(Entity(kind), settings(outgoing=rows), catalog(kind))
    refused = {problem.field for problem in transform.problems}
    return tuple(row for row in rows if row.service not in refused)


@cache
def reader(kind: Kind) -> IncomingTransform:
    return compile_incoming(Entity(kind), settings(*everything(kind, writable=False)), catalog(kind))


@cache
def writer(kind: Kind) -> OutgoingTransform:
    rows = everything(kind, writable=True)
    return compile_outgoing(Entity(kind), settings(outgoing=rows, claims=()), catalog(kind))


def records(kind: Kind) -> list[dict[str, Any]]:
    found = [company().record(kind, number) for number in range(1, RECORDS + 1)]
    return [record for record in found if record is not None]


@kinds
def test_every_field_is_known_from_either_version_of_the_field_list(kind: Kind) -> None:
    fields = company().fields[kind]

    of_v1 = read_field_definitions([row for number, field in enumerate(fields) for row in to_v1(field, number)])

    custom = {field.code: field.type for field in fields if field.custom}
    assert {field.code: field.type for field in of_v1 if field.is_custom} == custom
    assert {field.code: field.type for field in catalog(kind).by_code.values() if field.is_custom} == custom
    assert reader(kind).problems == ()


@kinds
def test_every_generated_record_is_read_without_a_problem(kind: Kind) -> None:
    optional = set(reader(kind).include_fields)

    found = {
        (problem.field, problem.reason)
        for record in records(kind)
        for problem in reader(kind).read(record).problems
        if problem.field not in optional
    }

    assert found == set()


@kinds
def test_a_webhook_has_the_same_values_as_a_fetch(kind: Kind) -> None:
    for record in records(kind):
        event = Event(
            action="change", entity=kind, id=record["id"], before=record, after=record, moment=time.time(), source="app"
        )
        decoded = decode_webhook(payload(company(), event, SUBSCRIPTION), catalog(kind))

        completed, unsure = complete_record(decoded, record, reader(kind).custom_fields)

        assert reader(kind).read(completed) == reader(kind).read(record)
        assert unsure == ()


@kinds
def test_what_was_read_is_not_written_back(kind: Kind) -> None:
    for record in records(kind):
        written = writer(kind).write(reader(kind).read(record).attributes, record)

        assert (written.fields, written.problems) == ({}, ())


@kinds
def test_every_write_is_accepted_and_is_the_last(kind: Kind) -> None:
    for wanted, record in zip(records(kind), reversed(records(kind)), strict=True):
        report = reader(kind).read(wanted).attributes
        written = writer(kind).write(report, record)

        after = company().edit(kind, record["id"], written.fields)

        assert after is not None
        assert writer(kind).write(report, after).fields == {}


@kinds
def test_every_create_is_accepted_and_needs_no_second_write(kind: Kind) -> None:
    for wanted in records(kind)[:20]:
        report = reader(kind).read(wanted).attributes
        written = writer(kind).write(report, None)

        created = company().create(kind, written.fields)

        assert writer(kind).write(report, created).fields == {}

"""Rows that would be ignored without a word are named when they are saved."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.domain.kinds import Direction, Entity
from pipeline.domain.settings import ConnectorSettings
from pipeline.transform.targets import find_conflicts
from tests.unit.transform.company import CODES, ORGANIZATION_FIELDS, PERSON_FIELDS

TEXT = CODES["varchar"]


def conflicts(direction: Direction, *rows: tuple[str, str], entity: Entity = Entity.PERSON, **more: Any) -> list[int]:
    name = f"{direction}_{entity.hull}_attributes"
    document = {name: [{"hull": hull, "service": service} for hull, service in rows], **more}
    catalog = PERSON_FIELDS if entity is Entity.PERSON else ORGANIZATION_FIELDS
    return [each.position for each in find_conflicts(ConnectorSettings(**document), catalog, direction)]


@pytest.mark.parametrize(
    ("rows", "void"),
    [
        ([("n", "name")], []),
        ([("f", "first_name"), ("l", "last_name")], []),
        ([("n", "name"), ("f", "first_name")], [1]),
        ([("f", "first_name"), ("n", "name"), ("l", "last_name")], [0, 2]),
        ([("a", "email"), ("b", "emails")], [1]),
        ([("a", "phones"), ("b", "job"), ("c", "phone")], [2]),
        ([("a", "label"), ("b", "label_ids")], [1]),
        ([("a", CODES["monetary"]), ("b", f"{CODES['monetary']}_currency")], []),
        ([("a", CODES["address"]), ("b", f"{CODES['address']}_country"), ("c", f"{CODES['address']}_locality")], []),
        ([("a", "nonsense"), ("b", "nothing")], []),
    ],
)
def test_of_two_rows_that_write_one_field_the_later_is_named(rows: list[tuple[str, str]], void: list[int]) -> None:
    assert conflicts(Direction.OUTGOING, *rows) == void


def test_an_organization_has_one_name_alone() -> None:
    rows = (("n", "name"), ("a", "address"), ("c", "address_country"))

    assert conflicts(Direction.OUTGOING, *rows, entity=Entity.ORGANIZATION) == []


def test_a_field_that_a_setting_writes_is_named() -> None:
    rows = (("o", "org_id"), ("t", TEXT))

    assert conflicts(Direction.OUTGOING, *rows) == []
    assert conflicts(Direction.OUTGOING, *rows, link_users_in_service=True, user_sync_key=TEXT) == [0, 1]


@pytest.mark.parametrize(
    ("rows", "void"),
    [
        ([("a", "name"), ("traits_a", "email")], [1]),
        ([("pipedrive/id", "id")], []),
        ([("pipedrive/id", "name")], [0]),
        ([("n", "name"), ("f", "first_name"), ("m", "name")], []),
    ],
)
def test_of_two_rows_that_fill_one_attribute_the_later_is_named(rows: list[tuple[str, str]], void: list[int]) -> None:
    assert conflicts(Direction.INCOMING, *rows) == void

"""What salespeople do all day: one function for each kind of deed.

In: a `Desk`. Out: the company, changed; True when something was done, False when there was nothing to do it to.
Raises: Invalid where a drawn value refers to what is gone by now, which happens to people too.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from sandbox.company import ENTITIES, Company, Entity, PageQuery, Record, names, values
from sandbox.company.model import editing_as

REMEMBERED = 1_000  # deletions that may yet be undone
BULK = (5, 60)  # records ticked in a list view


class Desk:
    """Where the team works: the company, a source of chance, and what was deleted lately."""

    def __init__(self, company: Company, draw: random.Random) -> None:
        self.company = company
        self.draw = draw
        self.deleted: deque[tuple[Entity, int]] = deque(maxlen=REMEMBERED)

    def chance(self, share: float) -> bool:
        """Say yes in a share of all cases."""
        return self.draw.random() < share

    def some(self, entity: Entity, limit: int = 1) -> list[int]:
        """Pick live records that lie next to one another, anywhere in the company; their ids."""
        newest, _ = self.company.page(entity, PageQuery(descending=True, limit=1))
        if not newest:
            return []
        before = self.draw.randrange(newest[0].id)
        rows, _ = self.company.page(entity, PageQuery(limit=limit, after=(before, before)))
        return [row.id for row in rows if not row.is_deleted]

    def edit(self, entity: Entity, make: Callable[[int], Record]) -> bool:
        """Change one record by what `make` makes for it; False when there is none."""
        return any(
            self.company.edit(entity, record_id, make(record_id), source="app") for record_id in self.some(entity)
        )

    def person_name(self) -> tuple[str, str]:
        """Draw a name, and how its owner writes it in an address."""
        if self.chance(0.1):
            first, last, slug = self.draw.choice(names.NON_LATIN_NAMES)
            return f"{first} {last}", slug
        first, last = self.draw.choice(names.FIRST_NAMES), self.draw.choice(names.LAST_NAMES)
        return f"{first} {last}", f"{names.slug(first)}.{names.slug(last)}"

    def organization_name(self) -> str:
        """Draw a name."""
        if self.chance(0.05):
            return self.draw.choice(names.NON_LATIN_ORGANIZATIONS)
        head, sector = self.draw.choice(names.DOMAIN_HEADS), self.draw.choice(names.SECTORS)
        return f"{head.capitalize()} {sector} {self.draw.choice(names.LEGAL_FORMS)}".strip()

    def website(self) -> str:
        """Draw a website, nearly always one nobody has."""
        return f"https://www.{names.domain(self.draw.randrange(10**6, 10**9))}/"

    def email(self, slug: str | None = None) -> Record:
        """Draw an e-mail address of somebody's own."""
        number, provider = self.draw.randrange(10**6), self.draw.choice(names.MAIL_PROVIDERS)
        return {"value": f"{slug or self.person_name()[1]}.{number}@{provider}", "primary": True, "label": "work"}

    def phone(self) -> Record:
        """Draw a phone number."""
        return {"value": f"+372 {self.draw.randrange(10**7):07d}", "primary": True, "label": "mobile"}

    def organization(self) -> int | None:
        """Pick an Organization, if there is one."""
        return next(iter(self.some("organization")), None)

    def custom_value(self, entity: Entity) -> Record:
        """Draw a value for one custom field, null in a third of all cases; nothing where there are no fields."""
        fields = self.company.custom_fields(entity)
        if not fields:
            return {}
        ids = values.Range(persons=1, organizations=1, users=tuple(user.id for user in self.company.users))
        pool = values.custom_value_pool(self.company.seed, self.draw.choice(fields), ids)
        value: Record = orjson.loads(b"{%b}" % self.draw.choice(pool))
        return value


def edit_name(desk: Desk) -> bool:
    """Correct the name of a Person, now and then of an Organization."""
    if desk.chance(0.25):
        return desk.edit("organization", lambda _: {"name": desk.organization_name()})
    return desk.edit("person", lambda _: {"name": desk.person_name()[0]})


def edit_email(desk: Desk) -> bool:
    """Give a Person another address: instead of the others, beside them, or none at all."""
    return desk.edit("person", lambda person_id: {"emails": _contacts(desk, person_id, "emails", desk.email())})


def edit_phone(desk: Desk) -> bool:
    """Give a Person another number: instead of the others, beside them, or none at all."""
    return desk.edit("person", lambda person_id: {"phones": _contacts(desk, person_id, "phones", desk.phone())})


def edit_custom_field(desk: Desk) -> bool:
    """Fill in or empty a custom field."""
    entity = desk.draw.choice(ENTITIES)
    value = desk.custom_value(entity)
    return bool(value) and desk.edit(entity, lambda _: {"custom_fields": value})


def edit_owner(desk: Desk) -> bool:
    """Hand a record over to a colleague."""
    return desk.edit(desk.draw.choice(ENTITIES), lambda _: {"owner_id": _colleague(desk)})


def edit_link(desk: Desk) -> bool:
    """Move a Person to another Organization, or to none."""
    return desk.edit("person", lambda _: {"org_id": None if desk.chance(0.2) else desk.organization()})


def edit_website(desk: Desk) -> bool:
    """Give an Organization another website, or none; companies without the field are left alone."""
    if not desk.company.firmographics:
        return False
    return desk.edit("organization", lambda _: {"website": None if desk.chance(0.1) else desk.website()})


def create_person(desk: Desk) -> bool:
    """Enter a new Person, half of them at an Organization that is known."""
    _new_person(desk, desk.organization() if desk.chance(0.5) else None)
    return True


def create_person_with_organization(desk: Desk) -> bool:
    """Enter a new Person at a new Organization."""
    _new_person(desk, _new_organization(desk))
    return True


def create_organization(desk: Desk) -> bool:
    """Enter a new Organization."""
    _new_organization(desk)
    return True


def delete(desk: Desk) -> bool:
    """Delete a Person, rarely an Organization."""
    entity: Entity = "organization" if desk.chance(0.15) else "person"
    for record_id in desk.some(entity):
        desk.company.delete(entity, record_id, source="app")
        desk.deleted.append((entity, record_id))
        return True
    return False


def undelete(desk: Desk) -> bool:
    """Bring back what a colleague deleted lately."""
    if not desk.deleted:
        return False
    place = desk.draw.randrange(len(desk.deleted))
    entity, record_id = desk.deleted[place]
    del desk.deleted[place]
    return desk.company.undelete(entity, record_id)


def merge(desk: Desk) -> bool:
    """Merge two records that lie next to one another, the younger one into the older or the other way round."""
    entity: Entity = "organization" if desk.chance(0.3) else "person"
    pair = desk.some(entity, 2)
    desk.draw.shuffle(pair)
    return len(pair) == 2 and desk.company.merge(entity, *pair, source="app") is not None


def bulk_edit(desk: Desk) -> bool:
    """Tick many records in a list view and change one thing in all of them."""
    entity = desk.draw.choice(ENTITIES)
    value = desk.custom_value(entity)
    change: Record = {"custom_fields": value} if value and desk.chance(0.5) else {"owner_id": _colleague(desk)}
    ticked = desk.some(entity, desk.draw.randint(*BULK))
    with editing_as(bulk=True):
        for record_id in ticked:
            desk.company.edit(entity, record_id, change, source="app")
    return bool(ticked)


def _contacts(desk: Desk, person_id: int, member: str, fresh: Record) -> list[Record]:
    held: Any = (desk.company.record("person", person_id) or {}).get(member)
    if desk.chance(0.1):
        return []
    if not isinstance(held, list) or not held or desk.chance(0.6):
        return [fresh]
    return [{**fresh, "primary": False}, *held][:5]


def _new_person(desk: Desk, organization_id: int | None) -> None:
    name, slug = desk.person_name()
    body: Record = {"name": name, "org_id": organization_id, "owner_id": _colleague(desk)}
    if desk.chance(0.9):
        body["emails"] = [desk.email(slug)]
    if desk.chance(0.5):
        body["phones"] = [desk.phone()]
    desk.company.create("person", body, source="app")


def _new_organization(desk: Desk) -> int:
    body: Record = {"name": desk.organization_name(), "owner_id": _colleague(desk)}
    if desk.company.firmographics and desk.chance(0.8):
        body["website"] = desk.website()
    return int(desk.company.create("organization", body, source="app")["id"])


def _colleague(desk: Desk) -> int:
    return desk.draw.choice(desk.company.users).id

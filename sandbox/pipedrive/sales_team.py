"""A sales team that works in the company, so that there is always something to synchronize.

Each action changes the company as people change it in the app. The same seed does the same to the same company. It runs in
the sandbox because `POST /__sandbox__/team` starts it there, in a demo as in a benchmark; tests call `act`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

import orjson

from sandbox.app import require_number
from sandbox.company import ENTITIES, Company, Entity, Invalid, PageQuery, Record, names, values
from sandbox.company.model import editing_as

logger = logging.getLogger(__name__)
_TRIES = 20  # until an action finds a record that it can be done to
_MOST_BEHIND_S = 1.0  # of a machine too slow for the rate; further actions are skipped
_REMEMBERED = 1_000  # deletions that may be undone
_BULK = (5, 60)  # records selected in a list view


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How often each action is done, relative to the others. Raises: ValueError for a negative weight, or if all are 0."""

    edit_name: float = 12
    edit_email: float = 12
    edit_phone: float = 10
    edit_custom_field: float = 20
    edit_owner: float = 8
    edit_link: float = 6
    edit_website: float = 4
    create_person: float = 8
    create_person_with_organization: float = 4
    create_organization: float = 3
    delete: float = 3
    undelete: float = 1
    merge: float = 1
    bulk_edit: float = 0.5

    def __post_init__(self) -> None:
        given = asdict(self)
        if any(require_number(weight, action) < 0 for action, weight in given.items()) or not any(given.values()):
            raise ValueError("weights: must not be negative, nor all 0")


class SalesTeam:
    """`act` does one action; `start` has a thread do so at a rate, by the wall clock."""

    def __init__(self, company: Company, *, seed: int | str = 1, weights: Weights | None = None) -> None:
        self.weights = weights or Weights()
        self.counts: Counter[str] = Counter(dict.fromkeys(ACTIONS, 0))
        self.rate_per_s = 0.0
        self._company = company
        self._lock = threading.Lock()
        self._switching = threading.RLock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.reseed(seed)

    def reseed(self, seed: int | str) -> None:
        """Restart the random numbers."""
        with self._lock:
            self._context = TeamContext(self._company, random.Random(str(seed)))
            self._gaps = random.Random(f"{seed}:gaps")

    def act(self) -> str | None:
        """Do one action as one of the users. Return its name, or None if nothing could be done."""
        with self._lock:
            context, weights = self._context, asdict(self.weights)
            for action in context.draw.choices(list(weights), list(weights.values()), k=_TRIES):
                if self._do(context, action):
                    self.counts[action] += 1
                    return action
            return None

    def start(self, rate_per_s: float) -> None:
        """Act so often on average, in a thread, until `stop`; a working team changes its rate. Raises: ValueError."""
        if require_number(rate_per_s, "rate") <= 0:
            raise ValueError("rate: must be above 0")
        with self._switching:
            self.stop()
            self.rate_per_s = rate_per_s
            self._stopped = threading.Event()
            self._thread = threading.Thread(target=self._work, args=(self._stopped,), name="sales-team", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop; nothing is done any more when this returns."""
        with self._switching:
            self._stopped.set()
            if self._thread is not None:
                self._thread.join()
            self._thread, self.rate_per_s = None, 0.0

    def _do(self, context: TeamContext, action: str) -> bool:
        user = context.draw.choice(self._company.users)
        trace = UUID(int=context.draw.getrandbits(128), version=4)
        with editing_as(user_id=user.id, correlation=trace):
            try:
                return ACTIONS[action](context)
            except Invalid:
                return False

    def _work(self, stopped: threading.Event) -> None:
        due = time.monotonic()
        while not stopped.wait(max(0.0, due - time.monotonic())):
            try:
                self.act()
            except Exception:
                logger.exception("an action of the sales team failed")
            due = max(due, time.monotonic() - _MOST_BEHIND_S) + self._gaps.expovariate(self.rate_per_s)


class TeamContext:
    """What actions work with: the company, random numbers, and what was deleted recently."""

    def __init__(self, company: Company, draw: random.Random) -> None:
        self.company = company
        self.draw = draw
        self.deleted: deque[tuple[Entity, int]] = deque(maxlen=_REMEMBERED)

    def chance(self, share: float) -> bool:
        """Return True in a share of all cases."""
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
        """Change one record by the members that `make` returns; False without a record."""
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
        """Draw a website, nearly always one that is new."""
        return f"https://www.{names.domain(self.draw.randrange(10**6, 10**9))}/"

    def email(self, slug: str | None = None) -> Record:
        """Draw an e-mail address that only one Person has."""
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


def _edit_name(team: TeamContext) -> bool:
    """Correct the name of a Person, now and then of an Organization."""
    if team.chance(0.25):
        return team.edit("organization", lambda _: {"name": team.organization_name()})
    return team.edit("person", lambda _: {"name": team.person_name()[0]})


def _edit_email(team: TeamContext) -> bool:
    """Give a Person another address: instead of the others, beside them, or none at all."""
    return team.edit("person", lambda person_id: {"emails": _contacts(team, person_id, "emails", team.email())})


def _edit_phone(team: TeamContext) -> bool:
    """Give a Person another number: instead of the others, beside them, or none at all."""
    return team.edit("person", lambda person_id: {"phones": _contacts(team, person_id, "phones", team.phone())})


def _edit_custom_field(team: TeamContext) -> bool:
    """Fill in or empty a custom field."""
    entity = team.draw.choice(ENTITIES)
    value = team.custom_value(entity)
    return bool(value) and team.edit(entity, lambda _: {"custom_fields": value})


def _edit_owner(team: TeamContext) -> bool:
    """Hand a record over to a colleague."""
    return team.edit(team.draw.choice(ENTITIES), lambda _: {"owner_id": _colleague(team)})


def _edit_link(team: TeamContext) -> bool:
    """Move a Person to another Organization, or to none."""
    return team.edit("person", lambda _: {"org_id": None if team.chance(0.2) else team.organization()})


def _edit_website(team: TeamContext) -> bool:
    """Give an Organization another website, or none; companies without the field are left alone."""
    if not team.company.firmographics:
        return False
    return team.edit("organization", lambda _: {"website": None if team.chance(0.1) else team.website()})


def _create_person(team: TeamContext) -> bool:
    """Enter a new Person, half of them at an Organization that is known."""
    _new_person(team, team.organization() if team.chance(0.5) else None)
    return True


def _create_person_with_organization(team: TeamContext) -> bool:
    """Enter a new Person at a new Organization."""
    _new_person(team, _new_organization(team))
    return True


def _create_organization(team: TeamContext) -> bool:
    """Enter a new Organization."""
    _new_organization(team)
    return True


def _delete(team: TeamContext) -> bool:
    """Delete a Person, rarely an Organization."""
    entity: Entity = "organization" if team.chance(0.15) else "person"
    for record_id in team.some(entity):
        team.company.delete(entity, record_id, source="app")
        team.deleted.append((entity, record_id))
        return True
    return False


def _undelete(team: TeamContext) -> bool:
    """Restore what a colleague deleted recently."""
    if not team.deleted:
        return False
    place = team.draw.randrange(len(team.deleted))
    entity, record_id = team.deleted[place]
    del team.deleted[place]
    return team.company.undelete(entity, record_id)


def _merge(team: TeamContext) -> bool:
    """Merge two records that lie next to one another, the younger one into the older or the other way round."""
    entity: Entity = "organization" if team.chance(0.3) else "person"
    pair = team.some(entity, 2)
    team.draw.shuffle(pair)
    return len(pair) == 2 and team.company.merge(entity, *pair, source="app") is not None


def _bulk_edit(team: TeamContext) -> bool:
    """Select many records in a list view and change one thing in all of them."""
    entity = team.draw.choice(ENTITIES)
    value = team.custom_value(entity)
    change: Record = {"custom_fields": value} if value and team.chance(0.5) else {"owner_id": _colleague(team)}
    selected = team.some(entity, team.draw.randint(*_BULK))
    with editing_as(bulk=True):
        for record_id in selected:
            team.company.edit(entity, record_id, change, source="app")
    return bool(selected)


def _contacts(team: TeamContext, person_id: int, member: str, fresh: Record) -> list[Record]:
    held: Any = (team.company.record("person", person_id) or {}).get(member)
    if team.chance(0.1):
        return []
    if not isinstance(held, list) or not held or team.chance(0.6):
        return [fresh]
    return [{**fresh, "primary": False}, *held][:5]


def _new_person(team: TeamContext, organization_id: int | None) -> None:
    name, slug = team.person_name()
    body: Record = {"name": name, "org_id": organization_id, "owner_id": _colleague(team)}
    if team.chance(0.9):
        body["emails"] = [team.email(slug)]
    if team.chance(0.5):
        body["phones"] = [team.phone()]
    team.company.create("person", body, source="app")


def _new_organization(team: TeamContext) -> int:
    body: Record = {"name": team.organization_name(), "owner_id": _colleague(team)}
    if team.company.firmographics and team.chance(0.8):
        body["website"] = team.website()
    return int(team.company.create("organization", body, source="app")["id"])


def _colleague(team: TeamContext) -> int:
    return team.draw.choice(team.company.users).id


ACTIONS: dict[str, Callable[[TeamContext], bool]] = {
    "edit_name": _edit_name,
    "edit_email": _edit_email,
    "edit_phone": _edit_phone,
    "edit_custom_field": _edit_custom_field,
    "edit_owner": _edit_owner,
    "edit_link": _edit_link,
    "edit_website": _edit_website,
    "create_person": _create_person,
    "create_person_with_organization": _create_person_with_organization,
    "create_organization": _create_organization,
    "delete": _delete,
    "undelete": _undelete,
    "merge": _merge,
    "bulk_edit": _bulk_edit,
}

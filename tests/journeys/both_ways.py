"""Ten minutes of edits of the same records in Hull and in Pipedrive, with a manual clock.

Messages of both systems arrive late, twice and in the wrong order. Each edit is recorded with the values that its side knew, so
that each final value can be checked.

    exchange   the edits of one field of one record between two agreements: on one side, or one edit on each side by people
               who had not seen the other edit
"""

from __future__ import annotations

import heapq
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Literal

from pipeline.domain.kinds import Entity
from pipeline.domain.settings import Owner
from sandbox.company import Event
from sandbox.company.model import editing_as
from sandbox.pipedrive.payload import payload
from tests.deliveries import SUBSCRIPTION, HullNotifications, deliver, receive
from tests.journeys.hull_messages import fetch_everything, field_code
from tests.journeys.pipedrive_records import create_records
from tests.manual_clock import Clock, manual_clock
from tests.system import SyncSystem, make_system

BEGIN = datetime(2026, 3, 2, 9, tzinfo=UTC)
STEP_S = 30
EDITS = 18
"""At most so many in one step."""
WEBHOOK_DELAY_S, HULL_DELAY_S = 40.0, 25.0
DUPLICATED = 0.15
REACTS = 0.35
"""How often an edit on one side is met by one of the same field on the other side."""
BOOKED = 10
"""Records of an entity that get most of the edits."""

Side = Literal["hull", "pipedrive"]
Place = tuple[str, int, str]
"""Entity, Pipedrive id, attribute."""


@dataclass(slots=True, kw_only=True)
class Edit:
    side: Side
    moment: float
    value: Any


@dataclass(slots=True, kw_only=True)
class Exchange:
    """edits  in order; the last one of a side is what that side wants"""

    place: Place
    before: Any
    edits: list[Edit] = field(default_factory=list)

    @property
    def sides(self) -> set[Side]:
        return {each.side for each in self.edits}

    def last(self, side: Side) -> Edit:
        return next(each for each in reversed(self.edits) if each.side == side)


@dataclass(slots=True, kw_only=True)
class Mapped:
    """One field that is mapped both ways: the attribute's name, the field's code, and what it may hold."""

    attribute: str
    code: str
    kind: Literal["name", "phone", "text", "enum"]
    options: Mapping[int, str] = field(default_factory=dict)

    def shown(self, record: Mapping[str, Any]) -> Any:
        """What Hull has to show of a Pipedrive record."""
        if self.kind == "name":
            return record["name"]
        if self.kind == "phone" and self.code == "phone":
            return next((each["value"] for each in record["phones"] if each["primary"]), None)
        held = record["custom_fields"].get(self.code)
        return self.options.get(held, held) if held is not None else None

    def body(self, value: Any) -> dict[str, Any]:
        """What a salesperson's app sends to put a value there."""
        if self.kind == "name":
            return {"name": value}
        if self.code == "phone":
            return {"phones": [] if value is None else [{"value": value, "primary": True, "label": "work"}]}
        back = {label: key for key, label in self.options.items()}
        return {"custom_fields": {self.code: back.get(value, value)}}


class Mail:
    """Messages in flight."""

    def __init__(self, clock: Clock, draw: random.Random) -> None:
        self._clock, self._draw = clock, draw
        self._in_flight: list[tuple[float, int, str, dict[str, Any]]] = []
        self._numbers = count()
        self._hull_is_done = 0.0
        self.counts: Counter[str] = Counter()

    def post(self, sender: str, body: dict[str, Any], *, within_s: float) -> None:
        """Send a message, and sometimes a second copy of it.

        Pipedrive's webhooks may arrive in any order. Hull waits for the answer to a notification before it sends the next, so
        only a second copy may arrive at any time.
        """
        copies = 2 if self._draw.random() < DUPLICATED else 1
        self.counts[sender] += copies
        for number in range(copies):
            due = self._clock() + self._draw.random() * within_s
            if sender == "hull" and number == 0:
                due = self._hull_is_done = max(self._hull_is_done, due)
            heapq.heappush(self._in_flight, (due, next(self._numbers), sender, body))

    def arrived(self) -> Iterator[tuple[str, dict[str, Any]]]:
        while self._in_flight and self._in_flight[0][0] <= self._clock():
            _, _, sender, body = heapq.heappop(self._in_flight)
            yield sender, body

    def __len__(self) -> int:
        return len(self._in_flight)


@dataclass(slots=True, kw_only=True)
class BothWays:
    """Both systems, their edits and their messages.

    exchanges   place → its current exchange, or the last one
    done        ended exchanges
    sent_twice  the record of each message to Hull that changed nothing there
    """

    system: SyncSystem
    clock: Clock
    owner: Owner
    draw: random.Random
    mail: Mail
    notifications: HullNotifications
    fields: Mapping[str, tuple[Mapped, ...]]
    exchanges: dict[Place, Exchange] = field(default_factory=dict)
    done: list[Exchange] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))
    chosen: Counter[tuple[Place, str]] = field(default_factory=Counter)
    sent_twice: list[tuple[str, int]] = field(default_factory=list)
    is_edited_by_hand: bool = False
    touched: dict[tuple[str, int, Side], list[float]] = field(default_factory=dict)

    def live(self, minutes: float) -> None:
        for _ in range(round(60 * minutes / STEP_S)):
            ends = self.clock() + STEP_S
            for _ in range(self.draw.randint(0, EDITS)):
                self.clock.move(self.draw.choice((0.01, 0.01, 0.7, 1.3)))
                self._edit_something()
            self.clock.move(max(0.0, ends - self.clock()))
            self._tick()

    def finish(self) -> None:
        """Process all messages and changes, without further edits."""
        for _ in range(200):
            self.clock.move(STEP_S)
            self._tick()
            if not len(self.mail) and not self.system.rows("SELECT 1 FROM changes"):
                break
        else:
            raise AssertionError("the systems never stop sending messages")
        self.done += self.exchanges.values()
        self.exchanges = {}

    def report_everything_again(self) -> None:
        """Have Hull report every record again, and read Pipedrive's list again, without changes."""
        notifier = self.system.hull_app.extensions["hull_notifier"]
        with self.system.hull.lock:
            for directory in (self.system.hull.accounts, self.system.hull.users):
                for record in list(directory.by_id.values()):
                    notifier.record_changed(record, {"seen": (1, next(self.numbers))}, is_new=False)
        for entity in Entity:
            self.system.start(entity, changed_only=True)
        self.finish()

    def hull_holds(self) -> dict[Place, Any]:
        held = {"person": self.system.users(), "organization": self.system.accounts()}
        return {
            (entity, number, each.attribute): record.get(each.attribute)
            for entity, records in held.items()
            for number, record in records.items()
            for each in self.fields[entity]
        }

    def pipedrive_holds(self) -> dict[Place, Any]:
        return {
            (entity, record["id"], each.attribute): each.shown(record)
            for entity in self.fields
            for record in map(json.loads, self.system.company.export(entity))  # type: ignore[arg-type]
            for each in self.fields[entity]
        }

    def _tick(self) -> None:
        """Send Hull's notifications, deliver what has arrived, and run due work."""
        self._listen_to_hull()
        for sender, body in self.mail.arrived():
            (deliver if sender == "pipedrive" else receive)(self.system, body)
        self.system.work()
        self._listen_to_hull()

    def _listen_to_hull(self) -> None:
        for each in self.notifications():
            self.mail.post("hull", each, within_s=HULL_DELAY_S)

    def on_pipedrive_change(self, event: Event) -> None:
        """Record a change in Pipedrive, and send its webhook."""
        body = json.loads(json.dumps(payload(self.system.company, event, SUBSCRIPTION)))
        self.mail.post("pipedrive", body, within_s=WEBHOOK_DELAY_S)
        if event.source == "app":
            self.touched.setdefault((event.entity, event.id, "pipedrive"), []).append(event.moment)
        else:
            before, after = ({**(each or {}), "update_time": None} for each in (event.before, event.after))
            self.counts["writes that changed Pipedrive"] += before != after

    def on_hull_change(self, record: Any, changes: Any, is_new: bool) -> None:
        """Count a message to Hull."""
        if self.is_edited_by_hand:
            return
        *_, (_, claims, _) = self.system.hull.received
        if claims.keys() >= {"asUser", "asAccount"}:
            self.counts["links"] += 1
            return
        self.counts["messages to Hull"] += 1
        if not (changes or is_new):
            self.sent_twice.append(("person" if record.kind == "user" else "organization", _pipedrive_id(record)))

    def _edit_something(self) -> None:
        entity = "person" if self.draw.random() < 0.75 else "organization"
        known = len(self.system.users() if entity == "person" else self.system.accounts())
        number = self.draw.randint(1, BOOKED if self.draw.random() < 0.6 else known)
        each = self.draw.choice(self.fields[entity])
        place = (entity, number, each.attribute)
        side: Side = "hull" if self.draw.random() < 0.5 else "pipedrive"
        if self._edit(place, each, side) and self.draw.random() < REACTS:
            self.clock.move(self.draw.choice((0.01, 0.4, 2.2)))
            self._edit(place, each, "pipedrive" if side == "hull" else "hull")

    def _edit(self, place: Place, mapped: Mapped, side: Side) -> bool:
        """Write another value, unless two people would overwrite each other in turns."""
        exchange = self._exchange_at(place)
        if exchange is None or (exchange.sides and side not in exchange.sides and not self._unseen(exchange, side)):
            return False
        if len(exchange.sides) == 2:
            return False
        value = self._another_value(mapped, exchange, side)
        exchange.edits.append(Edit(side=side, moment=self.clock(), value=value))
        self.exchanges[place] = exchange
        self.counts[f"edits in {side}"] += 1
        self._carry_out(place, mapped, side, value)
        return True

    def _exchange_at(self, place: Place) -> Exchange | None:
        """Return the current exchange of a place, or a new one if both sides agree and no message is in flight."""
        entity, number, _ = place
        current = self.exchanges.get(place)
        ours, theirs = self._held(place)
        if current is not None:
            is_over = ours == theirs and not self._has_messages(entity, number)
            if not is_over:
                return current
            self.done.append(self.exchanges.pop(place))
        return Exchange(place=place, before=theirs) if ours == theirs else None

    def _has_messages(self, entity: str, number: int) -> bool:
        hull_id = self._hull_id(entity, number)
        waits = self.system.rows("SELECT record_id FROM changes WHERE entity = :e", e=entity)
        if any(row.record_id in (hull_id, str(number)) for row in waits):
            return True
        return any(_is_about(body, entity, number, hull_id) for _, _, _, body in self.mail._in_flight)

    def _unseen(self, exchange: Exchange, side: Side) -> bool:
        """Return whether a side does not show the other side's edit yet."""
        hull, pipedrive = self._held(exchange.place)
        return bool((hull if side == "hull" else pipedrive) == exchange.before)

    def _held(self, place: Place) -> tuple[Any, Any]:
        entity, number, attribute = place
        mapped = next(each for each in self.fields[entity] if each.attribute == attribute)
        record = self.system.company.record(entity, number)  # type: ignore[arg-type]
        shown = self.system.hull.find(self._hull_id(entity, number)).attributes.get(attribute)
        return shown, mapped.shown(record or {})

    def _hull_id(self, entity: str, number: int) -> str:
        directory = self.system.hull.users if entity == "person" else self.system.hull.accounts
        return next(each.id for each in directory.by_id.values() if f"pipedrive:{number}" in each.anonymous_ids)

    def _another_value(self, mapped: Mapped, exchange: Exchange, side: Side) -> Any:
        number = next(self.numbers)
        taken = {exchange.before, *(each.value for each in exchange.edits)}
        if (
            mapped.kind == "enum"
        ):  # the one that was chosen least often: who comes back to one again and again looks like a rule
            free = [label for label in mapped.options.values() if label not in taken]
            self.draw.shuffle(free)
            value = min(free, key=lambda label: self.chosen[exchange.place, label])
            self.chosen[exchange.place, value] += 1
            return value
        if mapped.kind != "name" and None not in taken and self.draw.random() < 0.15:
            return None
        if mapped.kind == "phone":
            return f"+372 55{number:05d}"
        return f"CommandResult in {side} {number}"

    def _carry_out(self, place: Place, mapped: Mapped, side: Side, value: Any) -> None:
        entity, number, attribute = place
        if side == "pipedrive":
            with editing_as(user_id=self.draw.choice(self.system.company.users).id):
                assert self.system.company.edit(entity, number, mapped.body(value), source="app")  # type: ignore[arg-type]
            return
        self.touched.setdefault((entity, number, "hull"), []).append(self.clock())
        self.is_edited_by_hand = True
        path = f"/__sandbox__/{'users' if entity == 'person' else 'accounts'}/{self._hull_id(entity, number)}"
        answer = self.system.hull_app.test_client().post(path, json={attribute: value})
        self.is_edited_by_hand = False
        assert attribute in answer.get_json()["changes"]
        self._listen_to_hull()


def _pipedrive_id(record: Any) -> int:
    return next(int(each.partition(":")[2]) for each in record.anonymous_ids if each.startswith("pipedrive:"))


def _is_about(body: Mapping[str, Any], entity: str, number: int, hull_id: str) -> bool:
    if "meta" in body:
        return bool((body["meta"]["entity"], body["meta"]["entity_id"]) == (entity, str(number)))
    name = "user" if entity == "person" else "account"
    return any(each.get(name, {}).get("id") == hull_id for each in body["messages"])


@contextmanager
def both_ways(*, owner: Owner, seed: int, persons: int = 60, organizations: int = 15) -> Iterator[BothWays]:
    """Return a company after a full fetch, with fields that are synchronized both ways and no messages in flight."""
    with manual_clock(BEGIN) as clock, make_system(clock=clock) as system:
        draw = random.Random(f"{owner}:{seed}")
        fields = _fields(system)
        _map_both_ways(system, fields, owner)
        create_records(system, persons=persons, organizations=organizations)
        notifications = HullNotifications(system)
        fetch_everything(system)
        life = BothWays(
            system=system,
            clock=clock,
            owner=owner,
            draw=draw,
            mail=Mail(clock, draw),
            notifications=notifications,
            fields=fields,
        )
        system.company.listeners.append(life.on_pipedrive_change)
        _count_messages(system, life)
        life.finish()
        life.counts.clear()
        system.pipedrive.ledger.mutations.clear()
        yield life


def _fields(system: SyncSystem) -> dict[str, tuple[Mapped, ...]]:
    def enum(entity: Any, name: str, attribute: str) -> Mapped:
        found = next(each for each in system.company.custom_fields(entity) if each.name == name)
        options = {int(each.id): each.label for each in found.options}
        return Mapped(attribute=attribute, code=found.code, kind="enum", options=options)

    return {
        "person": (
            Mapped(attribute="nickname", code="name", kind="name"),
            Mapped(attribute="tel", code="phone", kind="phone"),
            Mapped(attribute="role", code=field_code(system, "person", "Job title"), kind="text"),
            enum("person", "Lead source", "source"),
        ),
        "organization": (
            Mapped(attribute="label", code="name", kind="name"),
            Mapped(attribute="switchboard", code=field_code(system, "organization", "Switchboard"), kind="phone"),
            Mapped(
                attribute="customer_number", code=field_code(system, "organization", "Customer number"), kind="text"
            ),
            enum("organization", "Tier", "tier"),
        ),
    }


def _map_both_ways(system: SyncSystem, fields: Mapping[str, tuple[Mapped, ...]], owner: Owner) -> None:
    rows = {
        entity: [{"hull": each.attribute, "service": each.code} for each in mapped] for entity, mapped in fields.items()
    }
    system.change_settings(
        incoming_user_attributes=rows["person"],
        incoming_account_attributes=rows["organization"],
        outgoing_user_attributes=[{**row, "owner": owner} for row in rows["person"]],
        outgoing_account_attributes=[{**row, "owner": owner} for row in rows["organization"]],
    )


def _count_messages(system: SyncSystem, life: BothWays) -> None:
    """Count each message to Hull with its changes."""
    announce = system.hull.announce

    def note(record: Any, changes: Any, *, is_new: bool = False) -> None:
        life.on_hull_change(record, changes, is_new)
        announce(record, changes, is_new=is_new)

    system.hull.announce = note


@dataclass(slots=True, kw_only=True)
class Judgement:
    """The results of the edits.

    either           exchanges of both sides, if the records' times do not show which edit was later
    lost, misjudged  exchanges with a wrong result
    contested        records with a field that both sides edited
    """

    one_sided: int = 0
    two_sided: int = 0
    either: int = 0
    lost: list[Exchange] = field(default_factory=list)
    misjudged: list[Exchange] = field(default_factory=list)
    contested: set[tuple[str, int]] = field(default_factory=set)


def judge(life: BothWays, held: Mapping[Place, Any]) -> Judgement:
    """Compare the last exchange of each place with its value now."""
    found = Judgement()
    last: dict[Place, Exchange] = {}
    for exchange in life.done:
        last[exchange.place] = exchange
        if len(exchange.sides) == 2:
            found.contested.add(exchange.place[:2])
    for place, exchange in last.items():
        value = held[place]
        if len(exchange.sides) == 1:
            found.one_sided += 1
            if value != exchange.edits[-1].value:
                found.lost.append(exchange)
            continue
        found.two_sided += 1
        winners = _winners(life, exchange)
        found.either += len(winners) == 2
        if value not in [exchange.last(side).value for side in winners]:
            found.misjudged.append(exchange)
    return found


def _winners(life: BothWays, exchange: Exchange) -> set[Side]:
    """Return the sides that may win; both for `latest` if the records' times do not show which edit was later."""
    if life.owner != "latest":
        return {life.owner}
    entity, number, _ = exchange.place
    first, last = sorted((exchange.last(side) for side in exchange.sides), key=lambda each: each.moment)
    until = last.moment + WEBHOOK_DELAY_S + HULL_DELAY_S + STEP_S
    touched = life.touched.get((entity, number, first.side), ())
    later = [moment for moment in touched if first.moment < moment <= until]
    if int(first.moment) == int(last.moment) or later:
        return {"hull", "pipedrive"}
    return {last.side}

"""Everything that one Hull organization holds for one connector, and the ways it changes.

`HullState` keeps identities and attributes consistent with links, segments, search indexes, counts and the log. Callers hold
`state.lock` while they change anything.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson

from sandbox.hull.attributes import IDENTIFYING, IDENTIFYING_KEYS, AttributeLookup, Changes, Schema, write_attributes
from sandbox.hull.identity import (
    NATURAL_CLAIM,
    Claims,
    Directory,
    HullRecord,
    IdentityMatch,
    Kind,
    find_matches,
    natural_claim,
    read_claims,
    resolve,
)

_LOG_LINES = 20_000
_Message = list[Any]
#: called with (record, what changed, whether the record is new)
ChangeListener = Callable[[HullRecord, Changes, bool], None]


class HullState:
    """`connector` is the object `GET app` answers; `members` maps an Account's id to the ids of its Users."""

    def __init__(self, *, connector: dict[str, Any], clock: Callable[[], float], received_limit: int) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.connector = connector
        self.users, self.accounts = Directory("user"), Directory("account")
        self.schemas: dict[Kind, Schema] = {"user": Schema("user"), "account": Schema("account")}
        self.lookups = {"user": AttributeLookup(self.users), "account": AttributeLookup(self.accounts)}
        self.segments = HullSegments()
        self.members: dict[str, set[str]] = {}
        self.links = 0
        self.counts: Counter[str] = Counter()
        self.received = ReceivedMessages(received_limit)
        self.log: deque[dict[str, Any]] = deque(maxlen=_LOG_LINES)
        self.listener: ChangeListener | None = None
        self.connector_listener: Callable[[], None] | None = None
        self.notify_on_firehose = False
        self.match_accounts_by_email_domain = False

    def directory(self, kind: Kind) -> Directory:
        return self.users if kind == "user" else self.accounts

    def find(self, hull_id: str) -> HullRecord | None:
        return self.users.find(hull_id) or self.accounts.find(hull_id)

    def account_of(self, user: HullRecord) -> HullRecord | None:
        return None if user.account_id is None else self.accounts.find(user.account_id)

    def find_by_claims(self, kind: Kind, claims: Claims) -> HullRecord | None:
        """Find the record that the claims mean; change nothing."""
        matches = find_matches(self.directory(kind), claims)
        return matches[0] if matches else None

    def change_connector(self, fields: Mapping[str, Any]) -> None:
        self.connector.update(fields)
        self.connector["updated_at"] = iso(self.clock())
        if self.connector_listener is not None:
            self.connector_listener()

    def report_error(self, kind: Kind, reason: str, **facts: Any) -> None:
        """One line in the log, under the name Hull's own log uses."""
        self.counts["errors"] += 1
        line = {"event": f"incoming.{kind}.error", "reason": reason, "at": iso(self.clock()), **facts}
        self.log.append(line)

    def identify(self, kind: Kind, claims: Claims, *, create: bool, now: float) -> IdentityMatch | None:
        """Find, create or merge a record, and update everything that refers to it."""
        directory = self.directory(kind)
        found = resolve(directory, claims, create=create, now=now)
        if found is None:
            return None
        self.counts["conflicts"] += found.conflicts
        self.counts[f"{kind}s_created"] += found.created
        for loser in found.merged:
            self._absorb(found.entity, loser, now)
        if found.changes:
            self.lookups[kind].note(found.entity, found.changes)
            found.entity.updated_at = now
        if found.created and kind == "user" and self.match_accounts_by_email_domain:
            self._match_account(found.entity, now)
        return found

    def write(self, entity: HullRecord, body: Mapping[str, Any], *, now: float, problems: list[str]) -> Changes:
        """Apply the attributes of a message; those that identify go through the identity rules."""
        changes: Changes = {}
        if not IDENTIFYING_KEYS[entity.kind].isdisjoint(body):
            given = {key.removeprefix("traits_"): value for key, value in body.items()}
            names = IDENTIFYING[entity.kind] & given.keys()
            changes = self._write_identity(entity, {name: given[name] for name in names}, problems)
            body = {name: value for name, value in given.items() if name not in names}
        changes |= write_attributes(entity, body, self.schemas[entity.kind], problems)
        if changes:
            entity.updated_at = now
            self.lookups[entity.kind].note(entity, changes)
        return changes

    def link(self, user: HullRecord, account: HullRecord, now: float) -> Changes:
        """A User belongs to one Account at most; a second link moves it."""
        if user.account_id == account.id:
            return {}
        before = user.account_id
        self.unlink(user)
        user.account_id, user.updated_at = account.id, now
        self.members.setdefault(account.id, set()).add(user.id)
        self.links += 1
        return {"id": (before, account.id)}

    def unlink(self, user: HullRecord) -> None:
        if user.account_id is not None:
            self.members[user.account_id].discard(user.id)
            user.account_id = None
            self.links -= 1

    def incinerate(self, entity: HullRecord) -> None:
        """Delete a record for good."""
        if entity.kind == "user":
            self.unlink(entity)
        for user_id in list(self.members.get(entity.id, ())):
            self.unlink(self.users.by_id[user_id])
        self.members.pop(entity.id, None)
        self.lookups[entity.kind].forget(entity)
        self.segments.replace_member(entity.id, None)
        self.directory(entity.kind).remove(entity)
        self.counts["incinerated"] += 1

    def define_segment(self, kind: Kind, name: str, hull_ids: Iterable[str]) -> HullSegment:
        """Make or refill a segment. Records that enter or leave are announced as {"segments": (left, entered)}, ids of
        segments.
        """
        now, directory = self.clock(), self.directory(kind)
        segment = self.segments.get_or_define(kind, name, now)
        entered, left = self.segments.set_members(segment, hull_ids, now)
        for hull_id in sorted(entered | left):
            entity = directory.by_id.get(hull_id)
            if entity is not None:
                side = ([], [segment.id]) if hull_id in entered else ([segment.id], [])
                self.announce(entity, {"segments": side})
        return segment

    def announce(self, entity: HullRecord, changes: Changes, *, is_new: bool = False) -> None:
        """Send a changed record to the notifier, if there is one."""
        if self.listener is not None and (changes or is_new):
            self.listener(entity, changes, is_new)

    def _absorb(self, winner: HullRecord, loser: HullRecord, now: float) -> None:
        self.counts["merges"] += 1
        self.lookups[loser.kind].forget(loser)
        self.segments.replace_member(loser.id, winner.id)
        if winner.kind == "user":
            account = self.account_of(loser)
            self.unlink(loser)
            if account is not None and winner.account_id is None:
                self.link(winner, account, now)
            event_id = f"merge-{loser.id}"
            merged = {
                "event_id": event_id,
                "event": "User merged",
                "created_at": iso(now),
                "properties": {"merged_id": loser.id},
            }
            winner.events = {**(winner.events or {}), event_id: merged}
        for user_id in self.members.pop(loser.id, set()):
            self.users.by_id[user_id].account_id = winner.id
            self.members.setdefault(winner.id, set()).add(user_id)

    def _write_identity(self, entity: HullRecord, given: Mapping[str, Any], problems: list[str]) -> Changes:
        """`email`, `domain` and `external_id` among the attributes change the record's identity, but never merge it."""
        kind, directory, changes = entity.kind, self.directory(entity.kind), Changes()
        values = {name: v.get("value") if isinstance(v, dict) else v for name, v in given.items()}
        claims = read_claims(kind, values, problems)
        if claims.external_id is not None and claims.external_id != entity.external_id:
            if entity.external_id is not None or claims.external_id in directory.by_external:
                problems.append("external_id: cannot be changed, nor belong to two records")
            else:
                directory.set_external(entity, claims.external_id)
                changes["external_id"] = (None, claims.external_id)
        name = NATURAL_CLAIM[kind]
        cleared = name in values and values[name] is None
        if (claims.natural is not None or cleared) and claims.natural != entity.natural:
            changes[name] = (entity.natural, claims.natural)
            directory.set_natural(entity, claims.natural)
        return changes

    def _match_account(self, user: HullRecord, now: float) -> None:
        """The platform's option to put a new User into the Account of its e-mail's domain."""
        domain = natural_claim("account", (user.natural or "").rpartition("@")[2], []) if user.natural else None
        account = next(iter(self.accounts.holders(domain)), None) if domain else None
        if account is not None:
            self.link(user, account, now)


@dataclass(slots=True)
class HullSegment:
    id: str
    name: str
    kind: Kind
    created_at: float
    updated_at: float
    members: set[str] = field(default_factory=set)


class HullSegments:
    """All segments of both kinds, and who is in them."""

    def __init__(self) -> None:
        self._by_id: dict[str, HullSegment] = {}

    def of_kind(self, kind: Kind) -> list[HullSegment]:
        return [segment for segment in self._by_id.values() if segment.kind == kind]

    def holding(self, kind: Kind, hull_id: str) -> list[HullSegment]:
        return [segment for segment in self._by_id.values() if segment.kind == kind and hull_id in segment.members]

    def get_or_define(self, kind: Kind, name: str, now: float) -> HullSegment:
        """Within one kind a name means one segment."""
        for segment in self.of_kind(kind):
            if segment.name == name:
                return segment
        segment = HullSegment(f"5ee30000{len(self._by_id) + 1:016x}", name, kind, now, now)
        self._by_id[segment.id] = segment
        return segment

    def set_members(self, segment: HullSegment, hull_ids: Iterable[str], now: float) -> tuple[set[str], set[str]]:
        """Replace the list. Return (ids that entered, ids that left)."""
        members = set(hull_ids)
        entered, left = members - segment.members, segment.members - members
        segment.members, segment.updated_at = members, now
        return entered, left

    def replace_member(self, loser: str, winner: str | None) -> None:
        """Put the winner of a merge in the loser's place; remove a deleted record, which has no winner."""
        for segment in self._by_id.values():
            if loser in segment.members:
                segment.members.discard(loser)
                segment.members |= {winner} if winner else set()


class ReceivedMessages:
    """What the firehose received, as JSON lines of `[type, {asUser, asAccount, subjectType}, body]`: the newest, and the
    number of all.

    Bytes need a fifth of the objects' memory, and nothing of the garbage collector.
    """

    def __init__(self, limit: int) -> None:
        self.totals: Counter[str] = Counter()
        self.count = 0
        self._lines: deque[bytes] = deque(maxlen=limit)

    def add(self, message_type: str, claims: dict[str, Any], body: Any) -> None:
        self.count += 1
        self.totals[message_type] += 1
        # joined, because the copy is exact: what orjson returns keeps a buffer of 8 KB (3.13)
        self._lines.append(b"".join((orjson.dumps((message_type, claims, body)), b"\n")))

    def lines(self, since: int = 0) -> Iterator[bytes]:
        """A JSON line for every kept message from number `since` (the first ever is 0) on."""
        kept_from = self.count - len(self._lines)
        return islice(list(self._lines), max(0, since - kept_from), None)

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[_Message]:
        return (orjson.loads(line) for line in self.lines())


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

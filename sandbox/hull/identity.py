"""Which User or Account a message means: claims in, one record out.

Precedence is external_id, then e-mail (User) or domain (Account), then anonymous_id; a Hull id, where given, comes before
all. The first claim that matches decides, the others are added to the record found. Records matched by different claims are
merged unless both have an external_id and these differ: an external_id is never changed, and several records may then share
one e-mail.

An Account is known by its registrable domain ("shop.acme.co.uk" and "https://www.acme.co.uk/x" are both acme.co.uk).
Providers of free mailboxes are no company's domain. Hull does not publish its exact list or algorithm; the public suffix
list and the providers below replace it. Sources: https://www.hull.io/docs/reference/identity_resolution/ and
https://www.hull.io/docs/concepts/identifiers/
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from publicsuffixlist import PublicSuffixList

Kind = Literal["user", "account"]
Attributes = dict[str, Any]
#: the claim that names a person or company outside Hull, between external_id and anonymous_id in precedence
NATURAL_CLAIM: dict[Kind, str] = {"user": "email", "account": "domain"}
_ID_PREFIX: dict[Kind, str] = {"user": "5ee10000", "account": "5ee20000"}
FREEMAIL = frozenset((
    "gmail.com", "googlemail.com", "yahoo.com", "yahoo.co.uk", "yahoo.fr", "yahoo.de", "ymail.com", "hotmail.com",
    "hotmail.co.uk", "hotmail.fr", "outlook.com", "live.com", "msn.com", "aol.com", "icloud.com", "me.com",
    "mac.com", "proton.me", "protonmail.com", "gmx.com", "gmx.de", "gmx.net", "web.de", "t-online.de", "mail.com",
    "mail.ru", "yandex.ru", "yandex.com", "qq.com", "163.com", "126.com", "orange.fr", "wanadoo.fr", "free.fr",
    "laposte.net", "libero.it", "zoho.com", "fastmail.com", "hey.com",
))  # fmt: skip
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_SUFFIXES = PublicSuffixList()


@dataclass(slots=True, eq=False)
class HullRecord:
    """`natural` is the User's e-mail or the Account's domain; times are Unix seconds."""

    kind: Kind
    id: str
    created_at: float
    updated_at: float
    external_id: str | None = None
    natural: str | None = None
    account_id: str | None = None
    anonymous_ids: list[str] = field(default_factory=list)
    attributes: Attributes = field(default_factory=dict)
    events: dict[str, dict[str, Any]] | None = None


class Directory:
    """Every record of one kind, with its indexes; without precedence or merging."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.by_id: dict[str, HullRecord] = {}
        self.by_external: dict[str, HullRecord] = {}
        self.by_anonymous: dict[str, HullRecord] = {}
        self.merged_into: dict[str, str] = {}
        self._by_natural: dict[str, HullRecord | list[HullRecord]] = {}
        self._created = 0

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[HullRecord]:
        """In order of id, which is the order of creation."""
        return iter(self.by_id.values())

    def find(self, hull_id: str) -> HullRecord | None:
        """By Hull id; the id of a merged record finds the one it was merged into."""
        while hull_id in self.merged_into:
            hull_id = self.merged_into[hull_id]
        return self.by_id.get(hull_id)

    def holders(self, natural: str) -> Iterable[HullRecord]:
        """Records with this e-mail or domain, oldest first. Several only if their external_ids differ."""
        found = self._by_natural.get(natural)
        if found is None:
            return ()
        return found if isinstance(found, list) else (found,)

    def create(self, now: float) -> HullRecord:
        self._created += 1
        entity = HullRecord(self.kind, f"{_ID_PREFIX[self.kind]}{self._created:016x}", now, now)
        self.by_id[entity.id] = entity
        return entity

    def remove(self, entity: HullRecord) -> None:
        del self.by_id[entity.id]
        self.set_natural(entity, None)
        if entity.external_id is not None:
            del self.by_external[entity.external_id]
        for anonymous_id in entity.anonymous_ids:
            del self.by_anonymous[anonymous_id]

    def set_external(self, entity: HullRecord, external_id: str) -> None:
        self.by_external[external_id] = entity
        entity.external_id = external_id

    def set_natural(self, entity: HullRecord, natural: str | None) -> None:
        if entity.natural is not None:
            self._release_natural(entity, entity.natural)
        entity.natural = natural
        if natural is not None:
            others = list(self.holders(natural))
            self._by_natural[natural] = [*others, entity] if others else entity

    def add_anonymous(self, entity: HullRecord, anonymous_id: str) -> None:
        self.by_anonymous[anonymous_id] = entity
        entity.anonymous_ids.append(anonymous_id)

    def remove_anonymous(self, entity: HullRecord, anonymous_id: str) -> None:
        del self.by_anonymous[anonymous_id]
        entity.anonymous_ids.remove(anonymous_id)

    def _release_natural(self, entity: HullRecord, natural: str) -> None:
        rest = [other for other in self.holders(natural) if other is not entity]
        if rest:
            self._by_natural[natural] = rest if len(rest) > 1 else rest[0]
        else:
            del self._by_natural[natural]


class Claims(NamedTuple):
    """`natural` is the normalised e-mail or domain."""

    hull_id: str | None
    external_id: str | None
    natural: str | None
    anonymous_id: str | None


@dataclass(slots=True)
class IdentityMatch:
    """`changes` lists identity values that changed, as {name: (old, new)}."""

    entity: HullRecord
    created: bool = False
    conflicts: int = 0
    merged: list[HullRecord] = field(default_factory=list)
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def read_claims(kind: Kind, raw: Mapping[str, Any], problems: list[str]) -> Claims:
    """Normalise the claims of a token; a claim that cannot identify anything is left out and named in `problems`."""
    return Claims(
        _text("id", raw, problems),
        _text("external_id", raw, problems),
        _natural(kind, raw, problems),
        _text("anonymous_id", raw, problems),
    )


def natural_claim(kind: Kind, text: str, problems: list[str]) -> str | None:
    """Normalise an e-mail (User) or a domain (Account). A provider of free mailboxes is silently no domain."""
    normalise: Callable[[str], str | None] = _email_address if kind == "user" else registrable_domain
    value = normalise(text)
    if value is None:
        problems.append(f"{text!r} is not a valid {NATURAL_CLAIM[kind]}")
    return None if kind == "account" and value in FREEMAIL else value


def resolve(directory: Directory, claims: Claims, *, create: bool, now: float) -> IdentityMatch | None:
    """Find, create or merge. None: no record matches, and `create` is off or a Hull id is the only claim."""
    conflicts: list[HullRecord] = []
    matches = find_matches(directory, claims, conflicts)
    if matches:
        found = IdentityMatch(matches[0], conflicts=len(conflicts))
    elif create and any(claims[1:]):
        found = IdentityMatch(directory.create(now), created=True, conflicts=len(conflicts))
    else:
        return None
    for other in matches[1:]:
        if _conflicting(found.entity.external_id, other.external_id):
            found.conflicts += 1
        else:
            _merge(directory, found, other)
    _adopt(directory, found, claims)
    return found


def find_matches(directory: Directory, claims: Claims, conflicts: list[HullRecord] | None = None) -> list[HullRecord]:
    """Records that the claims match, by precedence, each once. Holders excluded because of an external_id go to `conflicts`."""
    hull_id, external_id, natural, anonymous_id = claims
    candidates: list[HullRecord | None] = []
    if hull_id is not None:
        candidates.append(directory.find(hull_id))
    if external_id is not None:
        candidates.append(directory.by_external.get(external_id))
    if natural is not None:
        usable = [e for e in directory.holders(natural) if not _conflicting(external_id, e.external_id)]
        candidates.append(usable[0] if usable else None)
    if anonymous_id is not None:
        holder = directory.by_anonymous.get(anonymous_id)
        if holder is not None and _conflicting(external_id, holder.external_id):
            if conflicts is not None:
                conflicts.append(holder)
        else:
            candidates.append(holder)
    return list(dict.fromkeys(entity for entity in candidates if entity is not None))


def _conflicting(one: str | None, other: str | None) -> bool:
    return one is not None and other is not None and one != other


def _merge(directory: Directory, found: IdentityMatch, loser: HullRecord) -> None:
    """The winner keeps its values and takes what it lacks; the loser's id finds it from now on."""
    winner = found.entity
    external_id, natural, anonymous_ids = loser.external_id, loser.natural, list(loser.anonymous_ids)
    directory.remove(loser)
    directory.merged_into[loser.id] = winner.id
    if external_id is not None and winner.external_id is None:
        directory.set_external(winner, external_id)
        found.changes["external_id"] = (None, external_id)
    if natural is not None and winner.natural is None:
        directory.set_natural(winner, natural)
        found.changes[NATURAL_CLAIM[directory.kind]] = (None, natural)
    before = list(winner.anonymous_ids)
    for anonymous_id in anonymous_ids:
        directory.add_anonymous(winner, anonymous_id)
    if anonymous_ids:
        found.changes["anonymous_ids"] = (before, list(winner.anonymous_ids))
    for name, value in loser.attributes.items():
        if name not in winner.attributes:
            winner.attributes[name] = value
            found.changes[name] = (None, value)
    winner.created_at = min(winner.created_at, loser.created_at)
    winner.events = {**(loser.events or {}), **(winner.events or {})} or None
    found.merged.append(loser)


def _adopt(directory: Directory, found: IdentityMatch, claims: Claims) -> None:
    """Add the claims the record does not have yet."""
    entity, changes = found.entity, found.changes
    _, external_id, natural, anonymous_id = claims
    if external_id is not None and entity.external_id != external_id:
        if entity.external_id is None and external_id not in directory.by_external:
            directory.set_external(entity, external_id)
            changes["external_id"] = (None, external_id)
        else:
            found.conflicts += 1
    if natural is not None and entity.natural != natural:
        changes[NATURAL_CLAIM[directory.kind]] = (entity.natural, natural)
        directory.set_natural(entity, natural)
    if anonymous_id is not None and anonymous_id not in directory.by_anonymous:
        before = list(entity.anonymous_ids)
        directory.add_anonymous(entity, anonymous_id)
        changes["anonymous_ids"] = (before, list(entity.anonymous_ids))


def _text(name: str, raw: Mapping[str, Any], problems: list[str]) -> str | None:
    value = raw.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    problems.append(f"{name} is neither text nor a whole number")
    return None


def _natural(kind: Kind, raw: Mapping[str, Any], problems: list[str]) -> str | None:
    name = NATURAL_CLAIM[kind]
    text = _text(name, raw, problems)
    return None if text is None else natural_claim(kind, text, problems)


@lru_cache(maxsize=65_536)
def registrable_domain(text: str) -> str | None:
    """Reduce a URL or host name to its registrable domain; None if the text is not a host name.

    "https://www.Shop.Acme.co.uk:8080/about" → "acme.co.uk" · "Acme" → None · "10.0.0.1" → None
    """
    host = _host(text)
    labels = host.split(".")
    if len(labels) < 2 or labels[-1].isdigit() or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    return _SUFFIXES.privatesuffix(host)


def _email_address(text: str) -> str | None:
    """Lower-case and trim an address; None if the text is not an address."""
    address = text.strip().lower()
    name, at, host = address.rpartition("@")
    return address if at and name and host and not any(c.isspace() for c in address) else None


def _host(text: str) -> str:
    bare = re.sub(r"^[a-z][a-z0-9+.-]*://", "", text.strip().lower())
    host = re.split(r"[/?#]", bare, maxsplit=1)[0].rpartition("@")[2].partition(":")[0].rstrip(".")
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        return ""

"""Which User or Account a message means: claims in, one Entity out.

Precedence is external_id, then e-mail (User) or domain (Account), then anonymous_id; a Hull id, where given, comes
before all. The first claim that matches decides, the others are added to the record found. Records matched by
different claims are merged unless both carry an external_id and these differ: an external_id is never changed, and
several records may then share one e-mail. Source: https://www.hull.io/docs/reference/identity_resolution/ and
https://www.hull.io/docs/concepts/identifiers/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sandbox.hull.records.domains import FREEMAIL, email_address, registrable_domain
from sandbox.hull.records.entity import NATURAL_CLAIM, Directory, Entity, Kind


class Claims(NamedTuple):
    """`natural` is the normalised e-mail or domain."""

    hull_id: str | None
    external_id: str | None
    natural: str | None
    anonymous_id: str | None


@dataclass(slots=True)
class Resolution:
    """`changes` lists identity values that became other ones, as {name: (old, new)}."""

    entity: Entity
    created: bool = False
    conflicts: int = 0
    merged: list[Entity] = field(default_factory=list)
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)


def read_claims(kind: Kind, raw: Mapping[str, Any], problems: list[str]) -> Claims:
    """Normalise the claims of a token; a claim that cannot identify anything is left out and named in `problems`."""
    return Claims(
        _text("id", raw, problems),
        _text("external_id", raw, problems),
        _natural(kind, raw, problems),
        _text("anonymous_id", raw, problems),
    )


def resolve(directory: Directory, claims: Claims, *, create: bool, now: float) -> Resolution | None:
    """Find, create or merge. None: nobody matches, and `create` is off or a Hull id is the only claim."""
    conflicts: list[Entity] = []
    matches = matching(directory, claims, conflicts)
    if matches:
        found = Resolution(matches[0], conflicts=len(conflicts))
    elif create and any(claims[1:]):
        found = Resolution(directory.create(now), created=True, conflicts=len(conflicts))
    else:
        return None
    for other in matches[1:]:
        if _conflicting(found.entity.external_id, other.external_id):
            found.conflicts += 1
        else:
            _merge(directory, found, other)
    _adopt(directory, found, claims)
    return found


def matching(directory: Directory, claims: Claims, conflicts: list[Entity] | None = None) -> list[Entity]:
    """Records the claims lead to, by precedence, each once. Holders left out over an external_id go to `conflicts`."""
    hull_id, external_id, natural, anonymous_id = claims
    candidates: list[Entity | None] = []
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


def _merge(directory: Directory, found: Resolution, loser: Entity) -> None:
    """The winner keeps its values and takes what it lacks; the loser's id leads to it from now on."""
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


def _adopt(directory: Directory, found: Resolution, claims: Claims) -> None:
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


def natural_claim(kind: Kind, text: str, problems: list[str]) -> str | None:
    """Normalise an e-mail (User) or a domain (Account). A provider of free mailboxes is silently no domain."""
    normalise: Callable[[str], str | None] = email_address if kind == "user" else registrable_domain
    value = normalise(text)
    if value is None:
        problems.append(f"{text!r} is no {NATURAL_CLAIM[kind]}")
    return None if kind == "account" and value in FREEMAIL else value

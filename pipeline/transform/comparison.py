"""Compare Pipedrive, Hull and the id map for the same records: buckets by digest, then record by record.

Hull casts values to the attribute's first type, has its own format for moments and normalizes domains; values are
therefore compared in one canonical form. A null in Pipedrive is a difference only if a value of ours was delivered:
what another source wrote into an attribute that we never filled is correct.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from pipeline.domain.deletions import DELETED_AT, DELETED_STATES
from pipeline.domain.drift import CONFLICT, Difference, Drift, DriftFinding, HullRecord, MappedRecord
from pipeline.domain.kinds import Claim, parse_record_id
from pipeline.domain.records import IncomingRecord
from pipeline.domain.texts import email_spelling, plain
from pipeline.domain.times import epoch_milliseconds
from pipeline.transform.hull_reports import ABSENT, ID_ATTRIBUTE, find_attribute, hull_id_of, pipedrive_ids_of
from pipeline.transform.identifiers import registrable_domain

Canonical = str | tuple[Any, ...] | None


def read_hull_record(report: Mapping[str, Any], names: Iterable[str]) -> HullRecord:
    """Take from a report what a comparison needs; `names` are the attributes that are mapped.

    Raises: Rejected("no_hull_id").
    """
    values = {name: value for name in names if (value := find_attribute(report, name)) is not ABSENT}
    account = report.get("account")
    given = report.get("anonymous_ids")
    anonymous = {"anonymous_ids": given if isinstance(given, list) else [], "anonymous_id": report.get("anonymous_id")}
    parts = [part for name in ("first_name", "last_name") if isinstance(part := report.get(name), str) and part]
    return HullRecord(
        hull_id=hull_id_of(report),
        pipedrive_ids=pipedrive_ids_of(report),
        anonymous_ids=frozenset(pipedrive_ids_of(anonymous)),
        attributes=values,
        organization_ids=pipedrive_ids_of(account) if isinstance(account, dict) else (),
        is_deleted=find_attribute(report, DELETED_AT) not in (ABSENT, None),
        composed_name=" ".join(parts),
    )


def holders(
    found: Iterable[HullRecord], wanted: Set[int]
) -> tuple[dict[int, HullRecord], list[tuple[int, HullRecord]]]:
    """Return Pipedrive id → its User or Account, and (id, User or Account) for those with the id of another one's record.

    An anonymous id is stronger than the attribute: only this connector writes it.
    """
    chosen: dict[int, HullRecord] = {}
    doubles: list[tuple[int, HullRecord]] = []
    for held in sorted(found, key=lambda each: each.hull_id):
        for pipedrive_id in set(held.pipedrive_ids) & wanted:
            rival = chosen.get(pipedrive_id)
            if rival is None:
                chosen[pipedrive_id] = held
            elif pipedrive_id in held.anonymous_ids and pipedrive_id not in rival.anonymous_ids:
                chosen[pipedrive_id] = held
                doubles.append((pipedrive_id, rival))
            else:
                doubles.append((pipedrive_id, held))
    return chosen, doubles


def digest(lines: Iterable[object]) -> bytes:
    """Return a digest of one side of a bucket, independent of the order."""
    hasher = hashlib.blake2b(digest_size=16)
    for line in sorted(map(repr, lines)):
        hasher.update(line.encode("utf-8", "backslashreplace") + b"\n")
    return hasher.digest()


def sides_agree(
    records: Mapping[int, IncomingRecord],
    held: Mapping[int, HullRecord],
    mapped: Mapping[int, MappedRecord],
    *,
    link: bool,
) -> bool:
    """Return whether the digests of a bucket agree pair by pair: contents, deliveries and ids."""
    return (
        digest(_pipedrive_line(record, link=link) for record in records.values())
        == digest(_hull_line(pipedrive_id, each, link=link) for pipedrive_id, each in held.items())
        and digest((record.pipedrive_id, record.digest) for record in records.values())
        == digest((row.pipedrive_id, row.digest) for row in mapped.values())
        and digest((pipedrive_id, each.hull_id) for pipedrive_id, each in held.items())
        == digest((row.pipedrive_id, row.hull_id) for row in mapped.values() if row.state == "full")
    )


def _pipedrive_line(record: IncomingRecord, *, link: bool) -> object:
    return record.pipedrive_id, _contents(record.attributes), record.organization_id if link else None


def _hull_line(pipedrive_id: int, held: HullRecord, *, link: bool) -> object:
    return pipedrive_id, _contents(held.attributes), next(iter(held.organization_ids), None) if link else None


def _contents(attributes: Mapping[str, Any]) -> list[tuple[str, Canonical]]:
    values = ((name, canonical(name, value)) for name, value in attributes.items())
    return sorted((name, value) for name, value in values if value is not None)


def find_drift(
    record: IncomingRecord, held: HullRecord | None, mapped: MappedRecord | None, *, link: bool
) -> Iterator[DriftFinding]:
    """Yield every drift of a record that Pipedrive has."""
    pipedrive_id = record.pipedrive_id
    if held is None:
        yield DriftFinding(kind=Drift.MISSING, pipedrive_id=pipedrive_id, hull_id=mapped.hull_id if mapped else None)
        return
    found = tuple(differences(record, held, mapped.delivered if mapped else frozenset()))
    if found:
        yield DriftFinding(kind=Drift.DIFFERENT, pipedrive_id=pipedrive_id, hull_id=held.hull_id, differences=found)
    organization_id = record.organization_id
    if link and organization_id is not None and organization_id not in held.organization_ids:
        linked = f"to that of {', '.join(map(str, held.organization_ids))}" if held.organization_ids else "to none"
        detail = f"belongs to Organization {organization_id}, is linked {linked}"
        yield DriftFinding(kind=Drift.UNLINKED, pipedrive_id=pipedrive_id, hull_id=held.hull_id, detail=detail)
    if mapped is None or mapped.state in DELETED_STATES:
        detail = "no id mapping" if mapped is None else f"the id mapping is {mapped.state}"
        yield DriftFinding(kind=Drift.UNMAPPED, pipedrive_id=pipedrive_id, hull_id=held.hull_id, detail=detail)
    elif mapped.state == CONFLICT and len(held.pipedrive_ids) == 1:
        detail = "the id mapping is in conflict, but Hull holds this record alone under the id"
        yield DriftFinding(kind=Drift.UNMAPPED, pipedrive_id=pipedrive_id, hull_id=held.hull_id, detail=detail)
    elif mapped.hull_id is not None and mapped.hull_id != held.hull_id:
        detail = f"the id map has {mapped.hull_id}"
        yield DriftFinding(kind=Drift.MISMAPPED, pipedrive_id=pipedrive_id, hull_id=held.hull_id, detail=detail)


def drift_of_absent(
    pipedrive_id: int, held: HullRecord | None, mapped: MappedRecord | None, *, marks: bool = False
) -> DriftFinding | None:
    """Return the drift of an id that Pipedrive does not have: none if it is known as deleted and Hull shows it correctly.

    marks  whether the settings mark deletions in Hull
    A shell is an Organization that a Person references; if Pipedrive does not show it, that is not drift.
    """
    if mapped is not None and mapped.state in DELETED_STATES:
        if held is None or not marks or not _shows_id(pipedrive_id, held):
            return None
        detail = f"the id map is {mapped.state}, and Hull still shows the id"
        is_ours = pipedrive_id in held.anonymous_ids
        return DriftFinding(
            kind=Drift.UNMARKED, pipedrive_id=pipedrive_id, hull_id=held.hull_id, detail=detail, is_ours=is_ours
        )
    if mapped is not None and mapped.state == "shell":
        return None
    if held is not None and held.is_deleted:
        return None
    if held is None and mapped is None:
        return None
    hull_id = held.hull_id if held is not None else mapped.hull_id if mapped is not None else None
    where = {(True, True): "Hull and the id map", (True, False): "Hull", (False, True): "the id map"}
    is_ours = mapped is not None or (held is not None and pipedrive_id in held.anonymous_ids)
    return DriftFinding(
        kind=Drift.EXTRA,
        pipedrive_id=pipedrive_id,
        hull_id=hull_id,
        detail=f"only {where[held is not None, mapped is not None]} has it",
        is_ours=is_ours,
    )


def _shows_id(pipedrive_id: int, held: HullRecord) -> bool:
    return parse_record_id(held.attributes.get(ID_ATTRIBUTE)) == pipedrive_id


def differences(record: IncomingRecord, held: HullRecord, delivered: Set[str]) -> Iterator[Difference]:
    """Return the mapped attributes with different values. A value that could not be read in Pipedrive is not compared."""
    for name, value in record.attributes.items():
        here, there = canonical(name, value), canonical(name, held.attributes.get(name))
        if here == there or (here is None and name not in delivered):
            continue
        if name == "name" and held.composed_name and there == held.composed_name:
            continue
        yield Difference(attribute=name, pipedrive=value, hull=held.attributes.get(name))


def canonical(name: str, value: Any) -> Canonical:
    """Return the form of a value that is compared; None for every kind of empty value."""
    if value is None or value in ("", []):
        return None
    if isinstance(value, list):
        return tuple(each for item in value if (each := canonical(name, item)) is not None) or None
    if isinstance(value, dict):
        return tuple(sorted((key, canonical("", inner)) for key, inner in value.items()))
    if name.endswith(("_at", "_date")):
        return _moment(value)
    return _plain(value) if name not in (Claim.EMAIL, Claim.DOMAIN) else _claim(name, str(value))


def _plain(value: Any) -> str:
    """Return a value as text. 12, 12.0 and "12" are equal: Hull shows the type that the attribute received first."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _claim(name: str, text: str) -> str:
    """Return an e-mail or a domain as Hull stores it."""
    if name == Claim.EMAIL:
        return email_spelling(text)
    spelled = plain(text).lower()
    return registrable_domain(spelled) or spelled


def _moment(value: Any) -> str:
    """Return a moment as Hull stores it: in whole seconds, a day as its midnight."""
    if isinstance(value, str) and len(value) == 10 and "-" in value:
        value = f"{value}T00:00:00Z"
    milliseconds = epoch_milliseconds(int(value) if isinstance(value, float) and value.is_integer() else value)
    return str(value) if milliseconds is None else str(milliseconds // 1000)

"""Convert a Pipedrive record to Hull's attributes.

The input is a record in API v2 format, the output an IncomingRecord. `compile_incoming` evaluates the settings and the field
definitions once; reading a record is then a loop over a list of columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import orjson

from pipeline.domain.deletions import DELETED_AT, MERGED, Deletion, DeletionEffect
from pipeline.domain.fields import OPTIONAL, FieldCatalog, FieldSource, find_source, is_listed
from pipeline.domain.kinds import Claim, Entity, Outcome, parse_record_id
from pipeline.domain.records import FieldProblem, IncomingRecord
from pipeline.domain.settings import AttributeMapping, ClaimRule, ConnectorSettings
from pipeline.domain.times import version_of
from pipeline.errors import Rejected, Skip
from pipeline.transform.hull_reports import ID_ATTRIBUTE, attribute_name
from pipeline.transform.identifiers import CLAIMS, SYNC_KEY, Normalise, name_domain_claim, other_emails
from pipeline.transform.reading import NOT_SENT, Reader, read_id, reader_for

_ABSENT: Final = object()
_NO_FIELDS: Final[dict[str, Any]] = {}

Column = tuple[str, str, str, Reader, bool, FieldProblem | None]
"""attribute, code in the settings, key in the record, reader, whether None is kept, meaning of an absent key"""

ClaimColumn = tuple[str, str, str, Reader, Normalise]
"""claim, code in the settings, key in the record, reader, normalisation"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingTransform:
    """How the records of one entity are read under one version of the settings.

    fingerprint     text that changes whenever the same record could be read differently
    problems        mapped fields that Pipedrive no longer has; only these are left out
    include_fields  record keys that the API returns on request only
    custom_fields   codes of the mapped custom fields
    sync_key        code of the custom field that stores the Hull id of a record created here; empty for none
    system_fields   keys of the other mapped fields that every complete record has
    """

    entity: Entity
    fingerprint: str
    problems: tuple[FieldProblem, ...]
    include_fields: tuple[str, ...]
    custom_fields: frozenset[str]
    system_fields: frozenset[str]
    _system: tuple[Column, ...]
    _custom: tuple[Column, ...]
    _claims: tuple[tuple[bool, ClaimColumn], ...]
    _by_email: bool
    _seed: Any
    sync_key: str = ""

    @property
    def attributes(self) -> frozenset[str]:
        """Return every attribute that this transform may give a record in Hull."""
        return frozenset({ID_ATTRIBUTE, *(column[0] for column in (*self._system, *self._custom))})

    @property
    def columns(self) -> tuple[tuple[bool, Column], ...]:
        """Return (whether the field is custom, column) of every attribute except the id."""
        return (*((False, each) for each in self._system), *((True, each) for each in self._custom))

    def read(self, record: object) -> IncomingRecord:
        """Read one record.

        Raises: Rejected("not_a_record", "no_id", "no_update_time", "unusable_text"); Skip("deleted_in_pipedrive").
        """
        if type(record) is not dict:
            raise Rejected("not_a_record", f"{type(record).__name__} where a record belongs")
        pipedrive_id = _read_record_id(record.get("id"))
        if record.get("is_deleted") is True or record.get("active_flag") is False:
            raise Skip("deleted_in_pipedrive", f"record {pipedrive_id}")
        version = version_of(record)
        if version is None:
            raise Rejected("no_update_time", f"record {pipedrive_id}")
        problems: list[FieldProblem] = []
        custom = record.get("custom_fields")
        if type(custom) is not dict:
            custom = _NO_FIELDS
        attributes: dict[str, Any] = {}
        _read_columns(self._system, record, attributes, problems)
        if custom is not _NO_FIELDS:  # absent or null: unknown for all of them
            _read_columns(self._custom, custom, attributes, problems)
        attributes[ID_ATTRIBUTE] = pipedrive_id
        claims = self._read_claims(record, custom, problems)
        organization_id = _read_link(record.get("org_id"), problems) if self.entity is Entity.PERSON else None
        return IncomingRecord(
            pipedrive_id=pipedrive_id,
            version=version,
            claims=claims,
            attributes=attributes,
            organization_id=organization_id,
            digest=self._digest(claims, attributes, organization_id),
            problems=tuple(dict.fromkeys(problems)) if problems else (),
            aliases=self._aliases(record, custom, claims),
        )

    def _read_claims(
        self, record: dict[str, Any], custom: dict[str, Any], problems: list[FieldProblem]
    ) -> dict[str, str]:
        claims: dict[str, str] = {}
        for is_custom, (claim, code, key, reader, normalise) in self._claims:
            raw = (custom if is_custom else record).get(key)
            if raw is None or claim in claims:
                continue
            try:
                value = reader(raw)
                normal = None if value is None or value is NOT_SENT else normalise(value)
            except Rejected as refused:
                problems.append(FieldProblem(field=code, reason=refused.reason, detail=refused.detail))
                continue
            if normal is not None:
                claims[claim] = normal
        return claims

    def _aliases(
        self, record: dict[str, Any], custom: dict[str, Any], claims: dict[str, str]
    ) -> tuple[tuple[str, str], ...]:
        """Return the secondary e-mails, if e-mails identify: a User may be looked up by any of them."""
        members = record.get("emails")
        more = other_emails(members, claims.get(Claim.EMAIL)) if self._by_email and type(members) is list else ()
        key = custom.get(self.sync_key) if self.sync_key else None
        return (*more, (SYNC_KEY, key)) if type(key) is str and key else more

    def _digest(self, claims: dict[str, str], attributes: dict[str, Any], organization_id: int | None) -> str:
        try:
            content = orjson.dumps((claims, attributes, organization_id), option=orjson.OPT_SORT_KEYS)
        except (TypeError, ValueError):
            raise Rejected("unusable_text", f"record {attributes[ID_ATTRIBUTE]} cannot be written as JSON") from None
        hasher = self._seed.copy()
        hasher.update(content)
        return str(hasher.hexdigest())


def compile_incoming(entity: Entity, settings: ConnectorSettings, catalog: FieldCatalog) -> IncomingTransform:
    """Decide how records are read: once per version of the settings and of the field definitions."""
    problems: list[FieldProblem] = []
    sources: dict[str, FieldSource] = {}
    rows, rules = settings.incoming(entity), settings.claims(entity)
    for code in dict.fromkeys([row.service for row in rows] + [rule.service for rule in rules]):
        source = find_source(code, catalog)
        if source is None or not is_listed(source, catalog):
            detail = f"this company's {entity.plural} have no such field"
            problems.append(FieldProblem(field=code, reason="field_missing", detail=detail))
        if source is not None:
            sources[code] = source
    unlisted = {problem.field for problem in problems}
    columns = list(_columns(rows, sources, unlisted))
    claims = list(_claim_columns(rules, sources))
    optional = OPTIONAL[entity]
    mapping = _mapping_text(entity, settings)
    return IncomingTransform(
        entity=entity,
        fingerprint=_fingerprint(mapping, sources),
        problems=tuple(problems),
        include_fields=tuple(sorted({source.key for source in sources.values() if source.key in optional})),
        custom_fields=frozenset(source.key for source in sources.values() if source.is_custom),
        system_fields=frozenset(
            source.key for code, source in sources.items() if not source.is_custom and code not in unlisted
        ),
        _system=tuple(column for is_custom, column in columns if not is_custom),
        _custom=tuple(column for is_custom, column in columns if is_custom),
        _claims=tuple(claims),
        _by_email=any(key == "emails" for _, (_, _, key, _, _) in claims),
        sync_key=settings.sync_key(entity),
        _seed=hashlib.blake2b(mapping, digest_size=16),
    )


def _columns(
    rows: tuple[AttributeMapping, ...], sources: Mapping[str, FieldSource], unlisted: Set[str]
) -> Iterator[tuple[bool, Column]]:
    named = {attribute_name(row.hull) for row in rows}
    for row in rows:
        source = sources.get(row.service)
        if source is None:
            continue
        attribute = attribute_name(row.hull)
        shared = (row.on_null == "clear", _absence(row.service, unlisted))
        yield source.is_custom, (attribute, row.service, source.key, reader_for(source, row.form), *shared)
        for part in _parts_beside(source, row):
            beside = f"{attribute}_{part}"
            if beside not in named:  # a separate mapping row wins
                reader = reader_for(source.with_part(part), row.form)
                yield source.is_custom, (beside, row.service, source.key, reader, *shared)


def _absence(code: str, unlisted: Set[str]) -> FieldProblem | None:
    """Report what a record lacks; a field that the company does not have is reported once, not with every record."""
    if code in unlisted:
        return None
    return FieldProblem(field=code, reason="field_missing", detail="not part of the record")


def _parts_beside(source: FieldSource, row: AttributeMapping) -> tuple[str, ...]:
    """Return the parts that are delivered as attributes of their own: always, or because the row lists them."""
    if source.part is not None:
        return ()
    if source.type == "address":
        return tuple(part for part in row.parts if part in source.parts)
    return tuple(part for part in source.parts if part != "timezone_id" or part in row.parts)


def _claim_columns(
    rules: tuple[ClaimRule, ...], sources: Mapping[str, FieldSource]
) -> Iterator[tuple[bool, ClaimColumn]]:
    for rule in rules:
        source = sources.get(rule.service)
        if source is None:
            continue
        is_name = rule.hull is Claim.DOMAIN and source.key == "name"
        normalise = name_domain_claim if is_name else CLAIMS[rule.hull]
        column = (rule.hull.value, rule.service, source.key, reader_for(source, "default"), normalise)
        yield source.is_custom, column


def _read_columns(
    columns: tuple[Column, ...], source: dict[str, Any], attributes: dict[str, Any], problems: list[FieldProblem]
) -> None:
    for attribute, code, key, reader, keeps_null, absence in columns:
        raw = source.get(key, _ABSENT)
        if raw is None:
            if keeps_null:
                attributes[attribute] = None
            continue
        if raw is _ABSENT:
            if absence is not None:
                problems.append(absence)
            continue
        try:
            value = reader(raw)
        except Rejected as refused:
            problems.append(FieldProblem(field=code, reason=refused.reason, detail=refused.detail))
            continue
        if value is not NOT_SENT and (value is not None or keeps_null):
            attributes[attribute] = value


def _read_record_id(raw: Any) -> int:
    found = None if isinstance(raw, float) else parse_record_id(raw)  # a body is found again by its exact id
    if found is None:
        raise Rejected("no_id", f"id is {type(raw).__name__}")
    return found


def _read_link(raw: Any, problems: list[FieldProblem]) -> int | None:
    if type(raw) is int and 0 < raw < 2**63:
        return raw
    if raw is None:
        return None
    try:
        found = read_id(raw)
    except Rejected:
        found = ""
    if found is None or (type(found) is int and found > 0):
        return found
    problems.append(FieldProblem(field="org_id", reason="wrong_type", detail="not the id of an Organization"))
    return None


def _mapping_text(entity: Entity, settings: ConnectorSettings) -> bytes:
    rows = [row.model_dump(mode="json", exclude={"owner"}) for row in settings.incoming(entity)]
    claims = [rule.model_dump(mode="json") for rule in settings.claims(entity)]
    return orjson.dumps([entity.value, rows, claims, settings.link_users_in_hull], option=orjson.OPT_SORT_KEYS)


def _fingerprint(mapping: bytes, sources: Mapping[str, FieldSource]) -> str:
    """Hash the mapping and the used definitions, labels included: a renamed label is delivered under its new name."""
    used = [
        [source.code, source.key, source.type, sorted((str(key), label) for key, label in source.options.items())]
        for source in sources.values()
    ]
    hasher = hashlib.blake2b(mapping, digest_size=16)
    hasher.update(repr(sorted(used)).encode(errors="backslashreplace"))
    return hasher.hexdigest()


def effect_of_deletion(
    deletion: Deletion,
    *,
    state: str,
    held: Mapping[str, Any],
    in_hull: bool,
    supported: bool,
    joinable: bool,
) -> DeletionEffect:
    """Decide what Hull receives about a deleted record, and what is logged.

    state      of its id mapping until now
    held       Hull's values of it, without nulls
    in_hull    whether Hull ever received it
    supported  whether the settings mark deletions in Hull
    joinable   for a merge: whether Hull can merge it with the survivor
    A `conflict` shares its User with a record that may still exist: that record keeps Hull's values.
    """
    is_new = state != deletion.state
    effect = partial(DeletionEffect, deletion=deletion, before=dict(held))
    success, skip = (Outcome.SUCCESS, Outcome.SKIP) if is_new else (None, None)
    is_marked = DELETED_AT in held
    if deletion.state == MERGED and joinable and in_hull and (is_new or not is_marked):
        return effect(outcome=success, reason=MERGED, joins=is_new or bool(held), delivered=None)
    stays_apart = deletion.state == MERGED and in_hull
    reason = "merge_not_applied" if stays_apart else deletion.state
    if not in_hull or state == "conflict":
        return effect(outcome=skip, reason=reason, delivered=dict(held) or None)
    if not supported:
        return effect(outcome=skip, reason=reason if stays_apart else "deletion_not_supported", delivered=dict(held))
    mark = {ID_ATTRIBUTE: None, DELETED_AT: iso_of(deletion.at_ms)}
    was_sent = not is_new and is_marked and ID_ATTRIBUTE not in held
    return effect(
        outcome=success,
        reason=reason,
        attributes={} if was_sent else mark,
        delivered={name: value for name, value in held.items() if name != ID_ATTRIBUTE}
        | {DELETED_AT: mark[DELETED_AT]},
    )


def iso_of(moment_ms: int) -> str:
    """Return a moment in the format of Hull's dates, in whole seconds."""
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

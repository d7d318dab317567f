"""Convert a User or Account to Pipedrive's fields: the write that makes a Person or Organization equal to it.

The input is Hull's report of the record and the last snapshot of its counterpart. The output is an OutgoingWrite with only
the differences. The settings and the field definitions are evaluated once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.fields import FieldCatalog, FieldSource, find_source, is_listed, is_writable
from pipeline.domain.kinds import Claim, Direction, Entity
from pipeline.domain.records import Agreement, FieldProblem, OutgoingWrite
from pipeline.domain.settings import ConnectorSettings, Owner
from pipeline.errors import Rejected
from pipeline.transform.conflicts import differs, digest_of, is_empty
from pipeline.transform.hull_reports import find_attribute, is_blank
from pipeline.transform.identifiers import CLAIMS
from pipeline.transform.targets import Target, compile_targets, digest_reported, find_conflicts, part_code, wanted_value
from pipeline.transform.writing import holds_member, write_members, write_value

_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingTransform:
    """How the records of one entity are written under one version of the settings.

    problems  mapped fields that can never be written; only these are left out
    targets   the mapped fields, in the order of the settings
    claims    claim and field, for the claims that are written too
    owners    key of a field that is mapped in both directions → its owner
    sync_key  code of the custom field that stores the Hull id of a record created here; empty for none
    """

    entity: Entity
    problems: tuple[FieldProblem, ...]
    targets: tuple[Target, ...]
    claims: tuple[tuple[Claim, FieldSource], ...]
    owners: Mapping[str, Owner]
    sync_key: str

    def write(
        self,
        report: Mapping[str, Any],
        snapshot: Mapping[str, Any] | None,
        *,
        organization_id: int | None = None,
        delivered: Collection[str] = (),
    ) -> OutgoingWrite:
        """Return the body of a PATCH, or of a POST without a snapshot.

        organization_id  the Organization to link a Person to; None leaves the link unchanged
        delivered        codes in an earlier write's `present`: only these are emptied in Pipedrive if Hull has no value,
                         so a first write never erases other sources' values
        Raises: Rejected("name_missing") if there is no name for a new record.
        """
        work = _Work(snapshot=snapshot, delivered=delivered)
        for target in self.targets:
            work.take(target, report)
        for claim, source in self.claims:
            work.take_claim(claim, source, report)
        if organization_id is not None and self.entity is Entity.PERSON:
            work.link(organization_id)
        if self.sync_key and snapshot is None:
            work.wanted[True, self.sync_key] = ("varchar", report.get("id"))
        self._choose_names(work, report)
        return work.finish()

    def _choose_names(self, work: _Work, report: Mapping[str, Any]) -> None:
        names = {key: value for (custom, key), (_, value) in work.wanted.items() if not custom and key in _NAMES}
        for key in names:
            del work.wanted[False, key]
        try:
            chosen = choose_names(names, work.snapshot)
        except Rejected as refused:
            work.problems.append(FieldProblem(field="name", reason=refused.reason, detail=refused.detail))
            chosen = {}
        if work.snapshot is None and not chosen:
            chosen = {"name": name_for_create(self.entity, report)}
        work.wanted |= {(False, key): ("varchar", value) for key, value in chosen.items()}


_NAMES: Final = ("name", "first_name", "last_name")


def compile_outgoing(entity: Entity, settings: ConnectorSettings, catalog: FieldCatalog) -> OutgoingTransform:
    """Decide how records are written: once per version of the settings and of the field definitions."""
    problems: list[FieldProblem] = []
    sources: dict[str, FieldSource] = {}
    for row in settings.outgoing(entity):
        source = find_source(row.service, catalog)
        if source is None or not is_listed(source, catalog):
            problems.append(
                FieldProblem(field=row.service, reason="field_missing", detail=f"no field of {entity.plural}")
            )
        elif not is_writable(source, entity):
            problems.append(FieldProblem(field=row.service, reason="not_writable", detail="Pipedrive sets it itself"))
        else:
            sources[row.service] = source
    rows = settings.outgoing(entity)
    problems += [
        FieldProblem(field=rows[each.position].service, reason="mapping_conflict", detail=each.why)
        for each in find_conflicts(settings, catalog, Direction.OUTGOING)
    ]
    targets = compile_targets(rows, sources)
    taken = {(target.source.is_custom, target.source.key) for target in targets}
    return OutgoingTransform(
        entity=entity,
        problems=tuple(problems),
        targets=targets,
        claims=_written_claims(entity, settings, catalog, taken),
        owners=_owners(entity, settings, catalog, sources),
        sync_key=_sync_key(entity, settings, catalog),
    )


def _owners(
    entity: Entity, settings: ConnectorSettings, catalog: FieldCatalog, sources: Mapping[str, FieldSource]
) -> Mapping[str, Owner]:
    """Return the fields that are mapped to Hull as well, under any attribute."""
    incoming = [find_source(row.service, catalog) for row in settings.incoming(entity)]
    both_ways = {source.key for source in incoming if source is not None}
    owners: dict[str, Owner] = {
        sources[row.service].key: row.owner
        for row in settings.outgoing(entity)
        if row.service in sources and sources[row.service].key in both_ways
    }
    if entity is Entity.PERSON and settings.link_users_in_hull:
        owners.setdefault("org_id", "hull")
    return owners


def _sync_key(entity: Entity, settings: ConnectorSettings, catalog: FieldCatalog) -> str:
    code = settings.sync_key(entity)
    definition = catalog.find(code) if code else None
    return code if definition is not None and definition.is_custom else ""


def _written_claims(
    entity: Entity, settings: ConnectorSettings, catalog: FieldCatalog, taken: Collection[tuple[bool, str]]
) -> tuple[tuple[Claim, FieldSource], ...]:
    """Return the claims that are written: into separate fields, never over a mapped field and never as the name."""
    written = []
    for rule in settings.claims(entity):
        source = find_source(rule.service, catalog)
        if source is None or source.part is not None or not is_listed(source, catalog):
            continue
        is_own = source.key != "name" and (source.is_custom, source.key) not in taken
        if is_own and is_writable(source, entity):
            written.append((Claim(rule.hull), source))
    return tuple(written)


class _Work:
    """One write while it is built: the wanted values so far, by place, and the problems."""

    def __init__(self, *, snapshot: Mapping[str, Any] | None, delivered: Collection[str]) -> None:
        self.snapshot = snapshot
        self.delivered = delivered
        self.wanted: dict[tuple[bool, str], tuple[str, Any]] = {}
        self.sides: dict[str, Agreement] = {}
        self.unreported: set[str] = set()
        self.present: set[str] = set()
        self.problems: list[FieldProblem] = []
        custom = (snapshot or _NOTHING).get("custom_fields")
        self._custom: Mapping[str, Any] = custom if isinstance(custom, dict) else _NOTHING

    def take(self, target: Target, report: Mapping[str, Any]) -> None:
        current = self._current(target.source)
        sides = (digest_reported(target, report), digest_of(target.source.type, current))
        try:
            found = wanted_value(target, report, current, self.delivered)
            self.present |= {part_code(target, part) for part in found.parts}
            if found.is_present:
                self.present.add(target.source.code)
            elif not self._may_empty(target, current):
                self.sides[target.source.key] = sides
                if not is_empty(target.source.type, current):
                    self.unreported.add(target.source.key)
                return
        except Rejected as refused:
            self.problems.append(FieldProblem(field=target.source.code, reason=refused.reason, detail=refused.detail))
            # What was delivered earlier is still there.
            codes = {target.source.code, *(part_code(target, part) for part in target.parts)}
            self.present |= codes.intersection(self.delivered)
            return
        self.wanted[target.source.is_custom, target.source.key] = (target.source.type, found.value)
        self.sides[target.source.key] = sides

    def link(self, organization_id: int) -> None:
        self.wanted[False, "org_id"] = ("org", organization_id)
        current = (self.snapshot or _NOTHING).get("org_id")
        self.sides["org_id"] = (digest_of("org", organization_id), digest_of("org", current))

    def take_claim(self, claim: Claim, source: FieldSource, report: Mapping[str, Any]) -> None:
        """Write a claim if the record does not have it yet; a web site is never replaced by a bare domain."""
        value = find_attribute(report, claim.value)
        if is_blank(value):
            return
        current = self._current(source)
        try:
            normal = CLAIMS[claim](value)
            if normal is None or (claim is Claim.DOMAIN and not is_empty(source.type, current)):
                return
            if source.type in ("emails", "phones"):
                written = current if holds_member(current, normal) else write_members(normal, current, whole=False)
            else:
                written = write_value(source, normal, {}, current, form="default")
        except Rejected as refused:
            self.problems.append(FieldProblem(field=source.code, reason=refused.reason, detail=refused.detail))
            return
        self.wanted.setdefault((source.is_custom, source.key), (source.type, written))

    def finish(self) -> OutgoingWrite:
        fields: dict[str, Any] = {}
        before: dict[str, Any] = {}
        kinds: dict[str, str] = {}
        for (is_custom, key), (kind, value) in self.wanted.items():
            current = (self._custom if is_custom else self.snapshot or _NOTHING).get(key)
            is_name_part = key in ("first_name", "last_name") and not is_custom
            if not is_name_part and not differs(kind, value, current):
                continue
            (fields.setdefault("custom_fields", {}) if is_custom else fields)[key] = value
            before[key], kinds[key] = current, kind
        return OutgoingWrite(
            fields=fields,
            before=before,
            present=frozenset(self.present),
            sides=self.sides,
            same=frozenset(self.sides.keys() - kinds.keys() - self.unreported),
            kinds=kinds,
            problems=tuple(self.problems),
        )

    def _may_empty(self, target: Target, current: Any) -> bool:
        return (
            target.clears
            and self.snapshot is not None
            and target.source.code in self.delivered
            and not is_empty(target.source.type, current)
        )

    def _current(self, source: FieldSource) -> Any:
        return (self._custom if source.is_custom else self.snapshot or _NOTHING).get(source.key)


def choose_names(names: Mapping[str, Any], snapshot: Mapping[str, Any] | None) -> dict[str, Any]:
    """Choose between a whole name and its parts.

    Shape:  wanted values of `name, first_name, last_name`; snapshot → what to write of them, {} for no change
    Both parts win over the whole name, which has less information; one part alone loses against it.
    Raises: Rejected("name_missing") if a name would be emptied.
    """
    current = snapshot or {}
    parts = [key for key in ("first_name", "last_name") if key in names]
    if len(parts) == 2 or (parts and "name" not in names):
        wanted = {key: (names[key] if key in names else current.get(key)) or "" for key in ("first_name", "last_name")}
        if any(wanted.values()):
            same = all((current.get(key) or "").strip() == value for key, value in wanted.items())
            return {} if same and snapshot is not None else wanted
    if "name" not in names and not parts:
        return {}
    name = names.get("name")
    if not name:
        raise Rejected("name_missing", "a record of Pipedrive cannot be without a name")
    return {"name": name}


def name_for_create(entity: Entity, report: Mapping[str, Any]) -> str:
    """Return a name for a new record without a mapped name.

    Raises: Rejected("name_missing").
    """
    first_and_last = " ".join(filter(None, (_text(report, "first_name"), _text(report, "last_name"))))
    named = {
        Entity.PERSON: (_text(report, "name"), first_and_last, _text(report, "email"), _text(report, "external_id")),
        Entity.ORGANIZATION: (_text(report, "name"), _text(report, "domain"), _text(report, "external_id")),
    }[entity]
    name = next((one for one in named if one), None)
    if name is None:
        raise Rejected("name_missing", "the record has no name, e-mail, domain or external id")
    return name[:_MAX_CHARS]


_MAX_CHARS: Final = 255


def _text(report: Mapping[str, Any], attribute: str) -> str:
    value = find_attribute(report, attribute)
    return value.strip() if isinstance(value, str) else ""

"""Generate the n-th Person or Organization of a company: always the same for the same seed.

A body is joined from pools of ready JSON by numbers that follow from (seed, entity, id): about 12 µs for two kilobytes, so an
unchanged record is never stored. `RecordFacts` are the columns that the store keeps of it.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from sandbox.company import names, values
from sandbox.company.fields import Entity, Field

_TWO_YEARS_S = 2 * 365 * 86_400
_MASK = values.POOL_SIZE - 1
_DRAWS = struct.Struct("<2I28H")
_CUSTOM_DRAWS = struct.Struct("<32H")
_DAYS: dict[int, bytes] = {}
_MINUTES = tuple(b"%02d:%02d:" % divmod(minute, 60) for minute in range(1440))
_SECONDS = tuple(b"%02dZ" % second for second in range(60))
# Sixteen draws: half of all records carry no label.
_LABELS = (*[b"[]"] * 8, b"[1]", b"[1]", b"[2]", b"[2]", b"[3]", b"[4]", b"[1,3]", b"[2,4]")
# How the same domain is written by different hands.
_WEBSITES = (
    b'"https://www.%b/"', b'"https://%b"', b'"http://www.%b"', b'"www.%b"', b'"%b"', b'"https://%b/en/about?ref=crm"',
    b'"HTTPS://WWW.%b/"', b'"https://shop.%b:443/"',
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of records with some property, each between 0 and 1."""

    no_organization: float = 0.2
    no_email: float = 0.05
    several_emails: float = 0.12  # the primary one is not the first
    duplicate_email: float = 0.01  # the address of an earlier Person
    odd_case_email: float = 0.03
    no_phone: float = 0.15
    several_phones: float = 0.1
    non_latin: float = 0.05
    hostile: float = 0.005
    deleted: float = 0.01
    no_domain: float = 0.1
    shared_domain: float = 0.02  # the domain of the Organization before
    name_is_domain: float = 0.05


class RecordFacts(NamedTuple):
    """The columns of a record: times in epoch seconds, references or None."""

    id: int
    add_time: int
    update_time: int
    owner_id: int
    org_id: int | None
    is_deleted: int


class PersonGenerator:
    """Persons 1..n of a company."""

    def __init__(
        self, *, seed: int, fields: list[Field], ids: values.Range, shares: Shares, now_s: int, gone: set[int]
    ) -> None:
        self._numbers = _Numbers(seed, "person")
        self._ids = ids
        self._now_s = now_s
        self._gone = gone
        self._set_thresholds(shares)
        self._firsts = [(_escape(name), names.slug(name).encode()) for name in names.FIRST_NAMES]
        self._lasts = [(_escape(name), names.slug(name).encode()) for name in names.LAST_NAMES]
        self._foreign = [(_escape(a), _escape(b), slug.encode()) for a, b, slug in names.NON_LATIN_NAMES]
        self._hostile = [(_escape(a), _escape(b), b"user") for a, b in names.HOSTILE_NAMES]
        self._providers = [provider.encode() for provider in names.MAIL_PROVIDERS]
        self._phones = values.phone_pool(seed)
        self._custom = _CustomFields(fields, seed, ids, ("Customer number",))

    def _set_thresholds(self, shares: Shares) -> None:
        self._t_deleted = _threshold(shares.deleted)
        self._t_no_org = _threshold(shares.no_organization)
        self._t_hostile = _threshold(shares.hostile)
        self._t_foreign = self._t_hostile + _threshold(shares.non_latin)
        self._t_no_email = _threshold(shares.no_email)
        self._t_duplicate = self._t_no_email + _threshold(shares.duplicate_email)
        self._t_several = self._t_duplicate + _threshold(shares.several_emails)
        self._t_odd_case = self._t_several + _threshold(shares.odd_case_email)
        self._t_no_phone = _threshold(shares.no_phone)
        self._t_phones = self._t_no_phone + _threshold(shares.several_phones)

    def facts(self, person_id: int) -> RecordFacts:
        """Return the columns of a Person."""
        u = self._numbers.general(person_id)
        added, updated = _times(u, self._now_s)
        owner = self._ids.users[u[6] % len(self._ids.users)]
        return RecordFacts(person_id, added, updated, owner, self._organization_of(u), int(u[2] < self._t_deleted))

    def _organization_of(self, u: tuple[int, ...]) -> int | None:
        if u[3] < self._t_no_org or not self._ids.organizations:
            return None
        # Squared, so that a few Organizations have many Persons and most have one or two.
        organization_id = 1 + (u[4] * u[4] * self._ids.organizations >> 32)
        return None if organization_id in self._gone else organization_id

    def body(self, facts: RecordFacts) -> bytes:
        """Return the `data` of `GET /api/v2/persons/{id}`."""
        person_id, added, updated, owner, organization, is_deleted = facts
        u = self._numbers.general(person_id)
        first, last, slug = self._name(u)
        name = b"%b %b" % (first, last) if last else first
        custom = [b'"%b":"C-%07d"' % (code, person_id) for code in self._custom.computed.values()]
        return (
            b'{"id":%d,"name":"%b","first_name":"%b","last_name":%b,"owner_id":%d,"org_id":%b,"add_time":"%b",'
            b'"update_time":"%b","emails":%b,"phones":%b,"is_deleted":%b,"visible_to":3,"label_ids":%b,"picture_id":null,'
            b'"custom_fields":{%b}}'
            % (
                person_id,
                name,
                first,
                b'"%b"' % last if last else b"null",
                owner,
                b"null" if organization is None else b"%d" % organization,
                rfc3339(added),
                rfc3339(updated),
                self._emails(u, person_id, slug),
                self._phone_list(u),
                b"true" if is_deleted else b"false",
                _LABELS[u[14] & 15],
                self._custom.write(self._numbers.custom(person_id), custom),
            )
        )

    def _name(self, u: tuple[int, ...]) -> tuple[bytes, bytes, bytes]:
        kind = u[7]
        if kind < self._t_hostile:
            return self._hostile[u[8] % len(self._hostile)]
        if kind < self._t_foreign:
            return self._foreign[u[8] % len(self._foreign)]
        first, first_slug = self._firsts[u[8] % len(self._firsts)]
        if u[9] < 400:  # a person of one name
            return first, b"", first_slug
        last, last_slug = self._lasts[u[9] % len(self._lasts)]
        return first, last, b"%b.%b" % (first_slug, last_slug)

    def _emails(self, u: tuple[int, ...], person_id: int, slug: bytes) -> bytes:
        kind = u[10]
        if kind < self._t_no_email:
            return b"[]"
        own = self._address(u, person_id, slug)
        if kind >= self._t_odd_case:
            return b'[{"value":"%b","primary":true,"label":"work"}]' % own
        if kind < self._t_duplicate:
            taken = self._address_of_earlier(person_id, u[12]) or own
            return b'[{"value":"%b","primary":true,"label":"work"}]' % (taken.title() if u[12] & 1 else taken)
        if kind < self._t_several:
            private = b"%b%d@%b" % (slug, person_id, self._providers[u[11] % len(self._providers)])
            return (
                b'[{"value":"%b","primary":false,"label":"home"},{"value":"%b","primary":true,"label":"work"}'
                b',{"value":"info@%b","primary":false,"label":"other"}]'
            ) % (private, own, own.partition(b"@")[2])
        return b'[{"value":"%b","primary":true,"label":"Work"}]' % own.title()

    def _address(self, u: tuple[int, ...], person_id: int, slug: bytes) -> bytes:
        organization_id = self._organization_of(u)
        if organization_id is None or u[11] < 6_000:
            return b"%b.%d@%b" % (slug, person_id, self._providers[u[11] % len(self._providers)])
        return b"%b.%d@%b" % (slug, person_id, names.domain(organization_id).encode())

    def _address_of_earlier(self, person_id: int, distance: int) -> bytes | None:
        """Find the address of a Person shortly before this one who has just one, or None."""
        for earlier in range(person_id - 1 - distance % 20, max(0, person_id - 60), -1):
            u = self._numbers.general(earlier)
            if u[10] >= self._t_several and u[2] >= self._t_deleted:
                return self._address(u, earlier, self._name(u)[2])
        return None

    def _phone_list(self, u: tuple[int, ...]) -> bytes:
        kind = u[13]
        if kind < self._t_no_phone:
            return b"[]"
        one = self._phones[kind & _MASK]
        if kind >= self._t_phones:
            return b'[{"value":%b,"primary":true,"label":"work"}]' % one
        other = self._phones[u[12] & _MASK]
        return b'[{"value":%b,"primary":false,"label":"mobile"},{"value":%b,"primary":true,"label":"work"}]' % (
            other,
            one,
        )


class OrganizationGenerator:
    """Organizations 1..n of a company. With `firmographics` off they have no `website` and the fields that come with it."""

    def __init__(
        self,
        *,
        seed: int,
        fields: list[Field],
        ids: values.Range,
        shares: Shares,
        now_s: int,
        firmographics: bool,
    ) -> None:
        self._numbers = _Numbers(seed, "organization")
        self._ids = ids
        self._now_s = now_s
        self._firmographics = firmographics
        self._t_deleted = _threshold(shares.deleted)
        self._t_hostile = _threshold(shares.hostile)
        self._t_foreign = self._t_hostile + _threshold(shares.non_latin)
        self._t_name_is_domain = self._t_foreign + _threshold(shares.name_is_domain)
        self._t_no_domain = _threshold(shares.no_domain)
        self._t_shared = self._t_no_domain + _threshold(shares.shared_domain)
        self._foreign = [_escape(name) for name in names.NON_LATIN_ORGANIZATIONS]
        self._hostile = [_escape(name) for name in names.HOSTILE_ORGANIZATIONS]
        self._addresses = values.address_pool(seed)
        computed = ("Customer number", "Domains", "Country code")
        self._custom = _CustomFields(fields, seed, ids, computed)

    def facts(self, organization_id: int) -> RecordFacts:
        """Return the columns of an Organization."""
        u = self._numbers.general(organization_id)
        added, updated = _times(u, self._now_s)
        owner = self._ids.users[u[6] % len(self._ids.users)]
        return RecordFacts(organization_id, added, updated, owner, None, int(u[2] < self._t_deleted))

    def body(self, facts: RecordFacts) -> bytes:
        """Return the `data` of `GET /api/v2/organizations/{id}`."""
        organization_id, added, updated, owner, _, is_deleted = facts
        u = self._numbers.general(organization_id)
        domain = self._domain(u, organization_id)
        return (
            b'{"id":%d,"name":"%b","owner_id":%d,"add_time":"%b","update_time":"%b","is_deleted":%b,"visible_to":3,'
            b'"label_ids":%b,"picture_id":null,"address":%b,%b"custom_fields":{%b}}'
            % (
                organization_id,
                self._name(u, organization_id),
                owner,
                rfc3339(added),
                rfc3339(updated),
                b"true" if is_deleted else b"false",
                _LABELS[u[14] & 15],
                self._addresses[u[15] & _MASK],
                self._firmographic_members(u, domain) if self._firmographics else b"",
                self._custom.write(self._numbers.custom(organization_id), self._computed(u, organization_id, domain)),
            )
        )

    def _name(self, u: tuple[int, ...], organization_id: int) -> bytes:
        kind = u[7]
        if kind < self._t_hostile:
            return self._hostile[u[8] % len(self._hostile)]
        if kind < self._t_foreign:
            return self._foreign[u[8] % len(self._foreign)]
        domain = names.domain(organization_id)
        if kind < self._t_name_is_domain:
            return domain.encode()
        sector = names.SECTORS[u[8] % len(names.SECTORS)]
        form = names.LEGAL_FORMS[u[9] % len(names.LEGAL_FORMS)]
        return f"{domain.partition('-')[0].capitalize()} {sector} {form}".rstrip().encode()

    def _domain(self, u: tuple[int, ...], organization_id: int) -> str | None:
        if u[10] < self._t_no_domain:
            return None
        return names.domain(organization_id - 1 if u[10] < self._t_shared and organization_id > 1 else organization_id)

    def _firmographic_members(self, u: tuple[int, ...], domain: str | None) -> bytes:
        website = b"null" if domain is None else _WEBSITES[u[11] & 7] % domain.encode()
        if u[12] & 3 == 0:
            return (
                b'"website":%b,"linkedin":null,"industry":null,"annual_revenue":null,"employee_count":null,' % website
            )
        linkedin = b'"https://www.linkedin.com/company/%b"' % domain.partition("-")[0].encode() if domain else b"null"
        return b'"website":%b,"linkedin":%b,"industry":%d,"annual_revenue":%d,"employee_count":%d,' % (
            website,
            linkedin,
            1 + u[12] % 6,
            u[13] * 1000,
            1 + u[16] // 50,
        )

    def _computed(self, u: tuple[int, ...], organization_id: int, domain: str | None) -> list[bytes]:
        domains = b"null"
        if domain is not None and (not self._firmographics or u[17] & 3 == 0):
            domains = b'"%b, mail.%b"' % (domain.encode(), domain.encode()) if u[17] & 4 else b'"%b"' % domain.encode()
        country = (b"EE", b"DE", b"FR", b"ES", b"BR", b"GB", b"US", b"JP")[u[18] & 7]
        written = {
            "Customer number": b'"O-%07d"' % organization_id,
            "Domains": domains,
            "Country code": b'"%b"' % country,
        }
        return [b'"%b":%b' % (code, written[name]) for name, code in self._custom.computed.items()]


def rfc3339(moment: int) -> bytes:
    """Write epoch seconds as the API does: 2026-01-10T08:00:00Z."""
    day, second = divmod(moment, 86_400)
    prefix = _DAYS.get(day)
    if prefix is None:
        prefix = _DAYS[day] = datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%dT").encode()
    return prefix + _MINUTES[second // 60] + _SECONDS[second % 60]


class _Numbers:
    """Numbers that follow from (seed, entity, id)."""

    def __init__(self, seed: int, entity: Entity) -> None:
        self._key = f"{entity}:{seed}".encode()[:64]

    def general(self, record_id: int) -> tuple[int, ...]:
        """Two 32-bit numbers, then twenty-eight of 16 bits."""
        digest = hashlib.blake2b(record_id.to_bytes(8, "little"), key=self._key).digest()
        return _DRAWS.unpack(digest)

    def custom(self, record_id: int) -> tuple[int, ...]:
        """Thirty-two 16-bit numbers, independent of `general`."""
        digest = hashlib.blake2b(record_id.to_bytes(8, "little"), key=self._key, salt=b"custom").digest()
        return _CUSTOM_DRAWS.unpack(digest)


class _CustomFields:
    """Write the `custom_fields` object of generated records."""

    def __init__(self, fields: list[Field], seed: int, ids: values.Range, computed: tuple[str, ...]) -> None:
        self.computed = {field.name: field.code.encode() for field in fields if field.custom and field.name in computed}
        pooled = [field for field in fields if field.custom and field.name not in self.computed]
        self._pools = [values.custom_value_pool(seed, field, ids) for field in pooled]
        self._rounds = range(0, len(self._pools), 32)

    def write(self, draws: tuple[int, ...], computed: list[bytes]) -> bytes:
        """Join the computed members with one from each pool; more than 32 pools use the numbers again."""
        pools = self._pools
        for start in self._rounds:
            chosen = pools[start : start + 32] if start or len(pools) > 32 else pools
            computed += [pool[(n + start) & _MASK] for pool, n in zip(chosen, draws, strict=False)]
        return b",".join(computed)


def _times(u: tuple[int, ...], now_s: int) -> tuple[int, int]:
    """Choose when a record was added and last changed, within the two years before `now_s`."""
    added = now_s - _TWO_YEARS_S + u[0] % (_TWO_YEARS_S - 60)
    return added, added + u[1] % (now_s - added - 1)


def _threshold(share: float) -> int:
    """Turn a share into the 16-bit number below which it lies."""
    return round(share * 65_536)


def _escape(text: str) -> bytes:
    """Escape text for use between the quotes of a JSON string."""
    return orjson.dumps(text)[1:-1]

"""Make the n-th Person of a company, the same for the same seed, without keeping any.

In: the seed, an id, and the columns the store holds for it. Out: `Facts` (what the store indexes), and bodies, ready v2 JSON.
"""

from __future__ import annotations

from sandbox.company import names
from sandbox.company.fields import Field
from sandbox.company.generated import draws, values


class PersonGenerator:
    """Persons 1..n of a company."""

    def __init__(
        self, *, seed: int, fields: list[Field], ids: values.Range, shares: draws.Shares, now_s: int, gone: set[int]
    ) -> None:
        self._numbers = draws.Draws(seed, "person")
        self._ids = ids
        self._now_s = now_s
        self._gone = gone
        self._set_thresholds(shares)
        self._firsts = [(draws.inner(name), names.slug(name).encode()) for name in names.FIRST_NAMES]
        self._lasts = [(draws.inner(name), names.slug(name).encode()) for name in names.LAST_NAMES]
        self._foreign = [(draws.inner(a), draws.inner(b), slug.encode()) for a, b, slug in names.NON_LATIN_NAMES]
        self._hostile = [(draws.inner(a), draws.inner(b), b"user") for a, b in names.HOSTILE_NAMES]
        self._providers = [provider.encode() for provider in names.MAIL_PROVIDERS]
        self._phones = values.phone_pool(seed)
        self._custom = draws.CustomFieldsWriter(fields, seed, ids, ("Customer number",))

    def _set_thresholds(self, shares: draws.Shares) -> None:
        self._t_deleted = draws.threshold(shares.deleted)
        self._t_no_org = draws.threshold(shares.no_organization)
        self._t_hostile = draws.threshold(shares.hostile)
        self._t_foreign = self._t_hostile + draws.threshold(shares.non_latin)
        self._t_no_email = draws.threshold(shares.no_email)
        self._t_duplicate = self._t_no_email + draws.threshold(shares.duplicate_email)
        self._t_several = self._t_duplicate + draws.threshold(shares.several_emails)
        self._t_odd_case = self._t_several + draws.threshold(shares.odd_case_email)
        self._t_no_phone = draws.threshold(shares.no_phone)
        self._t_phones = self._t_no_phone + draws.threshold(shares.several_phones)

    def facts(self, person_id: int) -> draws.Facts:
        """Tell what the store must know of a Person: when, whose, where, deleted or not."""
        u = self._numbers.general(person_id)
        added, updated = draws.times(u, self._now_s)
        owner = self._ids.users[u[6] % len(self._ids.users)]
        return draws.Facts(person_id, added, updated, owner, self._organization_of(u), int(u[2] < self._t_deleted))

    def _organization_of(self, u: tuple[int, ...]) -> int | None:
        if u[3] < self._t_no_org or not self._ids.organizations:
            return None
        # Squared, so that a few Organizations have many Persons and most have one or two.
        organization_id = 1 + (u[4] * u[4] * self._ids.organizations >> 32)
        return None if organization_id in self._gone else organization_id

    def body(self, facts: draws.Facts) -> bytes:
        """Write a pristine Person: `GET /api/v2/persons/{id}`'s `data`."""
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
                draws.rfc3339(added),
                draws.rfc3339(updated),
                self._emails(u, person_id, slug),
                self._phone_list(u),
                b"true" if is_deleted else b"false",
                draws.LABELS[u[14] & 15],
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
        one = self._phones[kind & draws.MASK]
        if kind >= self._t_phones:
            return b'[{"value":%b,"primary":true,"label":"work"}]' % one
        other = self._phones[u[12] & draws.MASK]
        return b'[{"value":%b,"primary":false,"label":"mobile"},{"value":%b,"primary":true,"label":"work"}]' % (
            other,
            one,
        )

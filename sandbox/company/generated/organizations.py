"""Make the n-th Organization of a company, the same for the same seed, without keeping any.

In: the seed, an id, and the columns the store holds for it. Out: `Facts` (what the store indexes), and bodies, ready v2 JSON.
"""

from __future__ import annotations

from sandbox.company import names
from sandbox.company.fields import Field
from sandbox.company.generated import draws, values

# How the same domain is written by different hands.
_WEBSITES = (
    b'"https://www.%b/"', b'"https://%b"', b'"http://www.%b"', b'"www.%b"', b'"%b"', b'"https://%b/en/about?ref=crm"',
    b'"HTTPS://WWW.%b/"', b'"https://shop.%b:443/"',
)  # fmt: skip


class OrganizationGenerator:
    """Organizations 1..n of a company. With `firmographics` off they have no `website` and its sisters."""

    def __init__(
        self,
        *,
        seed: int,
        fields: list[Field],
        ids: values.Range,
        shares: draws.Shares,
        now_s: int,
        firmographics: bool,
    ) -> None:
        self._numbers = draws.Draws(seed, "organization")
        self._ids = ids
        self._now_s = now_s
        self._firmographics = firmographics
        self._t_deleted = draws.threshold(shares.deleted)
        self._t_hostile = draws.threshold(shares.hostile)
        self._t_foreign = self._t_hostile + draws.threshold(shares.non_latin)
        self._t_name_is_domain = self._t_foreign + draws.threshold(shares.name_is_domain)
        self._t_no_domain = draws.threshold(shares.no_domain)
        self._t_shared = self._t_no_domain + draws.threshold(shares.shared_domain)
        self._foreign = [draws.inner(name) for name in names.NON_LATIN_ORGANIZATIONS]
        self._hostile = [draws.inner(name) for name in names.HOSTILE_ORGANIZATIONS]
        self._addresses = values.address_pool(seed)
        computed = ("Customer number", "Domains", "Country code")
        self._custom = draws.CustomFieldsWriter(fields, seed, ids, computed)

    def facts(self, organization_id: int) -> draws.Facts:
        """Tell what the store must know of an Organization: when, whose, deleted or not."""
        u = self._numbers.general(organization_id)
        added, updated = draws.times(u, self._now_s)
        owner = self._ids.users[u[6] % len(self._ids.users)]
        return draws.Facts(organization_id, added, updated, owner, None, int(u[2] < self._t_deleted))

    def body(self, facts: draws.Facts) -> bytes:
        """Write a pristine Organization: `GET /api/v2/organizations/{id}`'s `data`."""
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
                draws.rfc3339(added),
                draws.rfc3339(updated),
                b"true" if is_deleted else b"false",
                draws.LABELS[u[14] & 15],
                self._addresses[u[15] & draws.MASK],
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

"""Check that credentials belong to the connector's company, because ids of one company are not valid in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from db.connector import Connector
from pipeline.errors import ConfigurationError, Retryable

ADMINISTERED: Final = frozenset({"global", "account_settings", "sales"})
"""Pipedrive apps with administrators who see every record and may manage webhooks.
Source: https://developers.pipedrive.com/docs/api/v1/Users#getCurrentUser
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """The answer of `users/me` about the credentials.

    id       Pipedrive's id of the company; None if it is not in the answer
    origin   origin of the company's API, `https://acme.pipedrive.com`
    user_id  Pipedrive's id of the user
    """

    id: int | None
    origin: str
    user_id: int | None
    is_administrator: bool
    default_currency: str | None = None


def read_company(me: Mapping[str, Any]) -> Company:
    """Raises: Retryable("page_malformed") if the answer has no company."""
    domain, access = me.get("company_domain"), me.get("access")
    if not isinstance(domain, str) or not domain:
        raise Retryable("page_malformed", "users/me does not name the company of the credentials")
    rows = [row for row in access if isinstance(row, dict)] if isinstance(access, list) else []
    return Company(
        id=_number(me.get("company_id")),
        origin=f"https://{domain.lower()}.pipedrive.com",
        user_id=_number(me.get("id")),
        is_administrator=any(row.get("app") in ADMINISTERED and row.get("admin") is True for row in rows),
        default_currency=read_currency(me),
    )


def join(connector: Connector, company: Company) -> None:
    """Set the connector's company, or its new address.

    Older connectors have only the address: it is compared if the id is not known.
    Raises: ConfigurationError("other_company").
    """
    known = connector.company_id if company.id is not None else None
    is_same = known == company.id if known is not None else connector.pipedrive_company in {None, company.origin}
    if not is_same:
        ours = connector.pipedrive_company or f"company {connector.company_id}"
        raise ConfigurationError("other_company", f"they belong to {company.origin}, the connector to {ours}")
    connector.pipedrive_company = company.origin
    if company.id is not None:
        connector.company_id = company.id
    if company.default_currency is not None:
        connector.default_currency = company.default_currency


def read_currency(me: Mapping[str, Any]) -> str | None:
    """Return the default currency of `users/me`; None if it has none."""
    found = me.get("default_currency")
    return found.upper() if isinstance(found, str) and len(found) == 3 and found.isalpha() else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""Pipedrive companies: the key that distinguishes them, and their daily budget."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from pipeline.domain.budget import Allowance

COMPANY = """coalesce(
    c.company_id::text,
    (SELECT min(o.company_id)::text FROM connectors o WHERE o.pipedrive_company = c.pipedrive_company),
    c.pipedrive_company, c.id)"""
"""Of connectors `c`: the company's number, which an older connector learns from a newer one; else its origin."""

TERMS = (
    f"{COMPANY} AS company, v.document -> 'daily_tokens' AS daily_tokens, v.document -> 'live_reserve' AS live_reserve"
)
IN_FORCE = """LEFT JOIN LATERAL (SELECT document FROM settings_versions WHERE connector_key = c.key
                                   ORDER BY version DESC LIMIT 1) v ON true"""
"""Settings `v` of connectors `c`, for TERMS."""

_TERMS = text(f"SELECT {TERMS} FROM connectors c {IN_FORCE} WHERE c.key = :key")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class Terms:
    """company  key of a Pipedrive company; connectors of one company share its daily budget"""

    company: str
    allowance: Allowance


def terms(session: Session, connector_key: int) -> Terms:
    """Return the company that pays for a connector's calls, and how much the settings in force allow."""
    return terms_of(*session.execute(_TERMS, {"key": connector_key}).one())


def terms_of(company: str, daily_tokens: int | None, live_reserve: int | None) -> Terms:
    """The same from the columns of TERMS."""
    given = {"daily_tokens": daily_tokens, "live_reserve": live_reserve}
    return Terms(company, Allowance(**{name: value for name, value in given.items() if value is not None}))

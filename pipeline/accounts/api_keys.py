"""Make and check the API keys of scripts.

A key ends with what it was made from: a new password, a reset or a disabled operator revokes it. It expires, and its role is
never above its owner's.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Final

from db import api_key as rows
from db import audit
from db.operator import Operator, Present, lock_operator, present
from db.session import transaction
from pipeline.accounts.operators import OperatorRefused, digest_of, require_unchanged
from pipeline.domain.kinds import Role

PREFIX: Final = "hpk_"
"""People and scanners of repositories recognise a leaked key by it."""
USUAL_DAYS: Final = 90
MOST_DAYS: Final = 366
LONGEST_NAME: Final = 100


def make_key(
    owner: Present,
    name: str,
    *,
    role: Role | None = None,
    days: int = USUAL_DAYS,
    proved: Operator | None = None,
) -> str:
    """Return a new key, which is shown only now.

    role    what the key may do; the owner's own role by default
    days    until it expires
    proved  the owner as their password was proved a moment ago; no key is made if it changed since

    Raises: OperatorRefused.
    """
    role = role or Role(owner.role)
    if not Role(owner.role).may(role):
        raise OperatorRefused(f"a key's role cannot be above yours: {owner.role}")
    if not 1 <= days <= MOST_DAYS:
        raise OperatorRefused(f"a key expires after 1 to {MOST_DAYS} days")
    key = PREFIX + secrets.token_urlsafe(32)
    expires_at = datetime.now(UTC) + timedelta(days=days)
    name = name.strip()[:LONGEST_NAME] or "script"
    if not name.isprintable():
        raise OperatorRefused("a key's name has visible characters only")  # admins list it in a terminal
    with transaction() as session:
        require_unchanged(lock_operator(session, owner.id), proved)
        row = rows.ApiKey(operator_id=owner.id, name=name, digest=digest_of(key), role=role, expires_at=expires_at)
        session.add(row)
        detail = {"role": str(role), "expires": expires_at.date().isoformat()}
        audit.note(session, owner.name, "key.add", name, detail=detail)
    return key


def holder_of(key: str) -> Present | None:
    """Return the owner of this key, with the key's role; None for a key that is unknown, revoked or expired."""
    if not key.startswith(PREFIX):
        return None
    with transaction() as session:
        found = rows.find_key(session, digest_of(key))
        if found is None:
            return None
        owner, row = found
        role = row.role if Role(owner.role).may(Role(row.role)) else owner.role
        return present(owner, role=role, key=row.name)

"""Operators, their sessions and their API keys.

A new password, a reset, or disabling the operator revokes their keys. A key expires, and its role is never higher than its
owner's.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b32encode
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy.orm import Session

from db import audit
from db import operator as rows
from db.operator import Operator, Present, lock_operator, present
from db.session import transaction
from pipeline.accounts import passwords
from pipeline.accounts.passwords import WeakPassword
from pipeline.domain.kinds import Role
from pipeline.settings import settings

LONGEST_NAME: Final = 100


class OperatorRefused(Exception):
    """Nothing was changed; the text has the reason and the next step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The token of a session and its replacement: a stolen copy of the old one becomes invalid."""

    old: str
    new: str


def renewal_of(token: str) -> Renewal:
    """Return a new token for a session."""
    return Renewal(old=token, new=_new_token())


def first_code() -> str:
    """Return the code that opens `/setup` while there is no operator: derived from the key, the same in every process."""
    key = settings().secret_keys[0].encode()
    return b32encode(hmac.digest(key, b"the first operator", "sha256")[:20]).decode().lower()


def is_first_code(given: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), first_code().encode())


def hash_password(password: str, name: str) -> str:
    """Return the hash of a new password of this operator. Raises OperatorRefused.

    Hashing takes a tenth of a second, so do it before a transaction.
    """
    try:
        return passwords.hash_new(password, own_words=(name[:LONGEST_NAME],))
    except WeakPassword as weak:
        raise OperatorRefused(str(weak)) from None


def add_first(name: str, password: str) -> Operator:
    """Add the first operator, as an admin. Raises OperatorRefused if there is one already."""
    hashed = hash_password(password, name)
    with transaction() as session:
        rows.lock_operators(session)
        if rows.any_operator(session):
            raise OperatorRefused("an operator already exists: log in, or ask an admin to add you")
        operator = add(session, name, hashed, Role.ADMIN)
        audit.note(session, "first run", "operator.add", operator.name, detail={"role": str(Role.ADMIN)})
    return operator


def add(
    session: Session, name: str, hashed: str, role: Role, *, connector_keys: Collection[int] | None = None
) -> Operator:
    """Add an operator.

    hashed          the password; NO_PASSWORD for single sign-on only
    connector_keys  the connectors the operator may use; None means all

    Raises OperatorRefused.
    """
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        raise OperatorRefused(f"a name has 1 to {LONGEST_NAME} visible characters")
    try:
        operator_id = rows.put_operator(session, name.strip(), hashed, role)
    except ValueError as taken:
        raise OperatorRefused(str(taken)) from None
    operator = session.get_one(Operator, operator_id)
    if connector_keys is not None:
        limit(operator, connector_keys)
    return operator


def limit(operator: Operator, connector_keys: Collection[int] | None) -> None:
    """Limit an operator, and their keys, to some connectors; None is all. Raises OperatorRefused for an admin."""
    if connector_keys is not None and operator.role == Role.ADMIN:
        raise OperatorRefused("an admin may see every connector: give another role first")
    operator.connector_keys = None if connector_keys is None else sorted(set(connector_keys))


def change(
    session: Session,
    operator: Operator,
    *,
    role: Role | None = None,
    hashed: str | None = None,
    state: str | None = None,
    renewal: Renewal | None = None,
) -> int:
    """Change an operator's role, password or state, and end the operator's sessions. The caller holds the lock of
    `get_locked`.

    A new password and disabling also revoke the operator's keys.

    hashed   the new password
    renewal  of the session that continues

    Return how many keys were revoked. Raises OperatorRefused, also if no active admin would remain.
    """
    was_admin = (operator.role, operator.state) == (Role.ADMIN, "active")
    operator.password_hash = hashed or operator.password_hash
    operator.role, operator.state = role or operator.role, state or operator.state
    if operator.role == Role.ADMIN:
        operator.connector_keys = None
    session.flush()
    if was_admin and rows.count_admins(session) == 0:
        raise OperatorRefused(f"{operator.name} is the last admin: make another operator admin first")
    end_other_sessions(session, operator.id, renewal)
    return rows.revoke_keys_of(session, operator.id) if hashed or state == "disabled" else 0


def change_own_password(me: Present, password: str, *, proved: Operator, renewal: Renewal) -> int:
    """Change the password of an operator who has just entered the old one; return how many keys were revoked.

    proved   the operator when the password was verified; nothing is changed if it changed since
    renewal  of the session that continues

    Raises OperatorRefused.
    """
    hashed = hash_password(password, me.name)
    with transaction() as session:
        operator = get_locked(session, me.id)
        require_unchanged(operator, proved)
        revoked = change(session, operator, hashed=hashed, renewal=renewal)
        detail = {"password": "changed"} | ({"keys": revoked} if revoked else {})
        audit.note(session, me.name, "operator.change", operator.name, detail=detail)
    return revoked


def get_locked(session: Session, operator_id: int) -> Operator:
    """Return an operator, locked until the transaction ends; the last admin cannot be removed."""
    rows.lock_operators(session)
    return session.get_one(Operator, operator_id)


def open_session(
    session: Session, operator: Operator, *, address: str = "", agent: str = "", how: str = "password"
) -> str:
    """Open a session and return its token: 256 bits that only the browser stores.

    how  the kind of login, for the audit log
    """
    token = _new_token()
    rows.open_session(session, operator.id, digest_of(token), address=address, agent=agent)
    audit.note(session, operator.name, "operator.login", operator.name, detail={"how": how})
    return token


def who_is(token: str, *, renews: bool = True) -> Present | None:
    """Return the operator of this session token; see `db.operator.find_session` for `renews`."""
    with transaction() as session:
        return rows.find_session(session, digest_of(token), renews=renews)


def log_out(token: str) -> None:
    """End the session of this token."""
    with transaction() as session:
        present = rows.find_session(session, digest_of(token), renews=False)
        rows.close_session(session, digest_of(token))
        if present is not None:
            audit.note(session, present.name, "operator.logout", present.name)


def log_out_elsewhere(me: Present, renewal: Renewal) -> int:
    """End the operator's other sessions, including copies of this session's token; return how many."""
    with transaction() as session:
        ended = end_other_sessions(session, me.id, renewal)
        audit.note(session, me.name, "operator.logout", me.name, detail={"sessions": ended})
    return ended


def note_proof(me: Present, token: str) -> None:
    """Record that the operator has confirmed the password in this session."""
    with transaction() as session:
        rows.note_proof(session, digest_of(token))
        audit.note(session, me.name, "operator.confirm", me.name)


def end_session(me: Present, session_id: int) -> bool:
    """End one of the operator's sessions; return whether it existed."""
    with transaction() as session:
        is_ended = rows.close_session_by_id(session, me.id, session_id)
        if is_ended:
            audit.note(session, me.name, "operator.logout", me.name, detail={"sessions": 1})
    return is_ended


def end_other_sessions(session: Session, operator_id: int, renewal: Renewal | None) -> int:
    """End an operator's sessions, except the renewed one; return how many."""
    if renewal is None:
        return rows.close_sessions_of(session, operator_id)
    old, new = digest_of(renewal.old), digest_of(renewal.new)
    ended = rows.close_sessions_of(session, operator_id, but=old)
    rows.renew_session(session, old, new)
    return ended


def require_another(operator_id: int, me: Present) -> None:
    """Refuse that admins change their own account without its password. Raises: OperatorRefused."""
    if operator_id == me.id:
        raise OperatorRefused(
            "change your own password and second factor under your account, with the current password"
        )


def require_unchanged(operator: Operator, proved: Operator | None) -> None:
    """Raises: OperatorRefused if the operator's password or state has changed since it was proved."""
    if proved is not None and (operator.password_hash, operator.state) != (proved.password_hash, proved.state):
        raise OperatorRefused("your password was changed a moment ago: log in again")


def csrf_of(token: str) -> str:
    """Return the token that every form of this session contains, and no other page."""
    return hmac.digest(token.encode(), b"forms", "sha256").hex()


def digest_of(token: str) -> bytes:
    """Return the digest of a token or key, for storage."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _new_token() -> str:
    return secrets.token_urlsafe(32)


PREFIX: Final = "hpk_"
"""Identifies a leaked key to people and to secret scanners."""
USUAL_DAYS: Final = 90
MOST_DAYS: Final = 366
LONGEST_KEY_NAME: Final = 100


def create_key(
    owner: Present,
    name: str,
    *,
    role: Role | None = None,
    days: int = USUAL_DAYS,
    proved: Operator | None = None,
) -> str:
    """Create a key and return it; it is shown only once.

    role    by default the owner's own
    days    until it expires
    proved  the owner when the password was verified; no key is created if it changed since

    Raises: OperatorRefused.
    """
    role = role or Role(owner.role)
    if not Role(owner.role).may(role):
        raise OperatorRefused(f"a key's role cannot be above yours: {owner.role}")
    if not 1 <= days <= MOST_DAYS:
        raise OperatorRefused(f"a key expires after 1 to {MOST_DAYS} days")
    key = PREFIX + secrets.token_urlsafe(32)
    expires_at = datetime.now(UTC) + timedelta(days=days)
    name = name.strip()[:LONGEST_KEY_NAME] or "script"
    if not name.isprintable():
        raise OperatorRefused("a key's name has visible characters only")  # commands print it in a terminal
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
